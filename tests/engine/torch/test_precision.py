"""int8: close to float32, and the same bits whatever else is computed beside it."""

from __future__ import annotations

import math
import pydoc_data.topics
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from plato.engine import EngineError
from plato.engine.torch.attention import Rows
from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.kernels import has_compiled_kernels
from plato.engine.torch.load import load_model
from plato.engine.torch.model import LanguageModel, choose_precision

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not has_compiled_kernels(), reason="this machine has no C compiler")


@pytest.fixture(scope="module")
def int8(model_folder: str) -> LanguageModel:
    return load_model(TorchEngineConfig(model_folder, device="cpu", dtype="int8"))


@pytest.fixture(scope="module")
def text(tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(pydoc_data.topics.topics["naming"]).input_ids
    return ids[:200]


@torch.inference_mode()
def logits(model: LanguageModel, tokens: list[int], *cuts: int) -> torch.Tensor:
    """Logits of every position, computed in pieces that end at `cuts`."""
    pool = model.new_pool(len(tokens))
    slots = pool.allocate(len(tokens))
    pieces, start = [], 0
    for stop in (*cuts, len(tokens)):
        rows = [Rows(slots[:stop], stop - start)]
        pieces.append(model.forward(pool, tokens[start:stop], rows, list(range(stop - start))))
        start = stop
    return torch.cat(pieces)


def test_text_is_as_likely_as_in_float32(
    int8: LanguageModel, small: LanguageModel, text: list[int]
) -> None:
    following = torch.tensor(text[1:])
    loss, expected = (
        cross_entropy(logits(model, text)[:-1], following).item() for model in (int8, small)
    )
    assert math.exp(loss - expected) < 1.025


def test_pieces_change_no_bit(int8: LanguageModel, text: list[int]) -> None:
    whole = logits(int8, text)
    assert torch.equal(logits(int8, text, 1, 70, 71, 150), whole)
    assert torch.equal(logits(int8, text[:40], *range(1, 40)), whole[:40])


@torch.inference_mode()
def test_neighbours_change_no_bit(int8: LanguageModel, text: list[int]) -> None:
    alone = logits(int8, text[:60])[-1]
    pool = int8.new_pool(1000)
    mine, others = pool.allocate(60), [pool.allocate(90 + i) for i in range(5)]
    int8.forward(pool, text[:59], [Rows(mine[:59], 59)], [])
    for other in others:
        int8.forward(pool, text[-80:], [Rows(other[:80], 80)], [])
    rows = [Rows(mine, 1), *(Rows(other[:81], 1) for other in others[:4]), Rows(others[4], 14)]
    together = int8.forward(pool, [text[59], *text[:4], *text[10:24]], rows, [0, 1, 2, 3, 4, 18])
    assert torch.equal(together[0], alone)


def test_auto_takes_what_the_machine_is_good_at() -> None:
    assert choose_precision("auto", torch.device("cuda")) == "bfloat16"
    assert choose_precision("auto", CPU) == "int8"
    assert choose_precision("float32", CPU) == "float32"
    with pytest.raises(EngineError, match="int8 is for CPUs"):
        choose_precision("int8", torch.device("cuda"))


def test_int8_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plato.engine.torch.model.has_compiled_kernels", lambda: False)
    assert choose_precision("auto", CPU) == "float32"
    with pytest.raises(EngineError, match="install gcc"):
        choose_precision("int8", CPU)


def test_kv_takes_half_the_memory(int8: LanguageModel, small: LanguageModel) -> None:
    assert 2 * int8.kv_bytes_per_token == small.kv_bytes_per_token

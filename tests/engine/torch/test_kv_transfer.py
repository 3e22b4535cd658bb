"""Transferred KV gives the same output as KV that the engine has computed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plato.engine import (
    GenerateRequest,
    KVPiece,
    OtherModelError,
    Prompt,
    Segment,
    fingerprint,
)
from plato.engine.torch import TorchEngineConfig
from plato.engine.torch.core import EngineCore
from plato.engine.torch.load import load_model
from plato.engine.torch.protocol import Model
from tests.engine.conftest import MakeCore
from tests.engine.helpers import ask, run_together, some_tokens

PROMPT = Prompt((Segment(some_tokens(40)), Segment(some_tokens(30, 1))), "acme")


def request(prompt: Prompt = PROMPT, max_tokens: int = 12) -> GenerateRequest:
    return ask(*prompt.segments, tenant=prompt.tenant, max_tokens=max_tokens)


def transfer(source: EngineCore, target: EngineCore, prompt: Prompt = PROMPT) -> int:
    piece = source.export_kv(prompt, target.cached_prefix(prompt))
    return target.import_kv(prompt, piece) if piece is not None else 0


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_sequence_continues_from_transferred_kv_as_from_its_own(
    dtype: str, tiny_folder: str, make_core: MakeCore
) -> None:
    model = load_model(TorchEngineConfig(tiny_folder, device="cpu", dtype=dtype))
    source, target, alone = (make_core(model) for _ in range(3))
    run_together(source, [request()])
    assert transfer(source, target) == len(PROMPT)
    target.check_integrity()
    (transferred,) = run_together(target, [request()])
    (own,) = run_together(alone, [request()])
    assert transferred.tokens == own.tokens
    # The last token is computed: its logits are needed.
    assert transferred.last.cached_tokens == len(PROMPT) - 1
    assert target.imported_tokens == len(PROMPT)
    assert target.tree.kv_events.snapshot().stored


def test_only_what_is_missing_is_transferred(make_core: MakeCore) -> None:
    source, target = make_core(), make_core()
    run_together(source, [request()])
    first = Prompt(PROMPT.segments[:1], "acme")
    run_together(target, [request(first, 1)])
    known = target.cached_prefix(PROMPT)
    assert 0 < known < len(PROMPT)
    assert transfer(source, target) == len(PROMPT) - known
    assert transfer(source, target) == 0
    target.check_integrity()


def test_what_is_not_there_is_not_exported(make_core: MakeCore) -> None:
    core = make_core()
    assert core.export_kv(PROMPT, 0) is None
    run_together(core, [request()])
    assert core.export_kv(PROMPT, len(PROMPT)) is None
    assert core.export_kv(Prompt(PROMPT.segments, "another tenant"), 0) is None


def test_a_piece_that_does_not_fit_changes_nothing(make_core: MakeCore) -> None:
    source = make_core()
    run_together(source, [request()])
    piece = source.export_kv(PROMPT, 10)
    assert piece is not None
    # Its beginning is missing there.
    empty = make_core()
    assert empty.import_kv(PROMPT, piece) == 0
    # It is longer than memory.
    whole = source.export_kv(PROMPT, 0)
    assert whole is not None
    small = make_core(kv_tokens=50)
    assert small.import_kv(PROMPT, whole) == 0
    # It is longer than the prompt.
    assert make_core().import_kv(Prompt(PROMPT.segments[:1], "acme"), whole) == 0
    for core in (empty, small):
        core.check_integrity()
        assert core.imported_tokens == 0


def test_a_prefix_that_is_being_computed_is_left_to_who_computes_it(make_core: MakeCore) -> None:
    source, target = make_core(), make_core(prefill_chunk=16)
    run_together(source, [request()])
    target.add(request(), lambda _: None)
    target.step()
    piece = source.export_kv(PROMPT, target.cached_prefix(PROMPT))
    assert piece is not None
    assert target.import_kv(PROMPT, piece) == 0
    while target.has_work:
        target.step()
    target.check_integrity()


def test_transferred_kv_can_be_evicted_like_any_other(make_core: MakeCore) -> None:
    source, target = make_core(), make_core(kv_tokens=100)
    run_together(source, [request()])
    assert transfer(source, target) == len(PROMPT)
    other = Prompt((Segment(some_tokens(80, 9)),), "acme")
    run_together(target, [request(other, 4)])
    target.check_integrity()
    assert target.cached_prefix(PROMPT) < len(PROMPT)


@pytest.mark.parametrize(
    "change",
    [
        lambda piece: {"keys": piece.keys[1:]},
        lambda piece: {"values": piece.values[:, :-1]},
        lambda piece: {"keys": piece.keys[:, :, :1]},
        lambda piece: {"values": piece.values.astype(np.float64)},
        lambda piece: {"fingerprint": "another model"},
        lambda piece: {"start": -5},
        lambda piece: {"start": piece.stop},
    ],
    ids=["layers", "tokens", "heads", "type", "model", "before the start", "empty"],
)
def test_a_piece_of_another_shape_or_model_changes_nothing(
    change: Callable[[KVPiece], dict[str, Any]], make_core: MakeCore
) -> None:
    source, target = make_core(), make_core()
    run_together(source, [request()])
    piece = source.export_kv(PROMPT, 0)
    assert piece is not None
    assert target.import_kv(PROMPT, replace(piece, **change(piece))) == 0
    assert target.cached_prefix(PROMPT) == 0
    target.check_integrity()
    assert target.import_kv(PROMPT, piece) == len(PROMPT)


@pytest.mark.hostile
def test_kv_that_could_not_be_written_does_not_count_as_computed(
    make_core: MakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = make_core(), make_core()
    run_together(source, [request()])
    piece = source.export_kv(PROMPT, 0)
    assert piece is not None

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(target.pool, "write", fail)
        with pytest.raises(MemoryError):
            target.import_kv(PROMPT, piece)
    assert target.cached_prefix(PROMPT) == 0
    target.check_integrity()
    assert target.import_kv(PROMPT, piece) == len(PROMPT)


@pytest.mark.parametrize("change", ["weights", "precision"])
def test_kv_of_another_model_of_the_same_shape_is_refused(
    change: str, tiny_folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "trained further"))
    dtype = "bfloat16" if change == "precision" else "float32"
    if change == "weights":
        weights = folder / "model.safetensors"
        content = bytearray(weights.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        weights.write_bytes(content)
    cores = []
    for place, precision in ((tiny_folder, "float32"), (str(folder), dtype)):
        config = TorchEngineConfig(place, device="cpu", dtype=precision, kv_budget_bytes=1 << 20)
        cores.append(EngineCore(load_model(config), config, "epoch"))
    source, target = cores
    run_together(source, [request()])
    assert transfer(source, target) == 0
    assert "KV of another model refused" in caplog.text
    assert target.cached_prefix(PROMPT) == 0
    target.check_integrity()


def test_a_prompt_for_another_model_is_refused(tiny: Model, tiny_folder: str) -> None:
    config = TorchEngineConfig(tiny_folder, dtype="float32", kv_budget_bytes=1 << 20)
    core = EngineCore(tiny, config, "epoch")
    for dtype, refused in (("float32", False), ("int8", True)):
        asked = replace(
            request(), prompt=replace(PROMPT, fingerprint=fingerprint(tiny_folder, dtype))
        )
        if refused:
            with pytest.raises(OtherModelError, match="same model and dtype"):
                core.add(asked, lambda _: None)
        else:
            run_together(core, [asked])

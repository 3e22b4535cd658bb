"""Packed weights are kept for the next start, and never used in place of a changed model."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from plato.engine import EngineError
from plato.engine.torch import TorchEngineConfig
from plato.engine.torch.attention import Rows
from plato.engine.torch.kernels import has_compiled_kernels
from plato.engine.torch.load import load_model, packed_file
from plato.engine.torch.model import LanguageModel
from plato.engine.torch.packed import PackedModel
from tests.engine.helpers import some_tokens

pytestmark = pytest.mark.skipif(not has_compiled_kernels(), reason="this machine has no C compiler")


@pytest.fixture
def folder(tiny_folder: str, tmp_path: Path) -> Path:
    """A model that a test may change."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(folder: Path, cache: Path) -> LanguageModel:
    return load_model(TorchEngineConfig(str(folder), str(cache), device="cpu", dtype="int8"))


@torch.inference_mode()
def logits(model: LanguageModel) -> torch.Tensor:
    pool = model.new_pool(20)
    slots = pool.allocate(20)
    return model.forward(pool, list(some_tokens(20)), [Rows(slots, 20)], list(range(20)))


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "packed").glob("*/*.pt"))


def test_a_second_start_computes_the_same_without_transformers(folder: Path, cache: Path) -> None:
    first = load(folder, cache)
    assert isinstance(first, PackedModel)
    assert kept(cache) == [packed_file(folder, str(cache))]
    code = (
        "import sys, torch\n"
        "from tests.engine.torch.test_load import load, logits, Path\n"
        "model = load(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "assert 'transformers.modeling_utils' not in sys.modules\n"
        "facts = model.end_tokens, model.context_length, model.vocabulary, model.kv_heads\n"
        "torch.save((logits(model), facts), sys.argv[3])\n"
    )
    found = cache.parent / "found.pt"
    subprocess.run(
        [sys.executable, "-c", code, str(folder), str(cache), str(found)], check=True, timeout=120
    )
    second, facts = torch.load(found, weights_only=False)
    assert torch.equal(second, logits(first))
    assert facts == (first.end_tokens, first.context_length, first.vocabulary, first.kv_heads)


@pytest.mark.parametrize("damage", ["cut", "other values", "nothing in it"])
def test_a_damaged_file_is_packed_again(
    damage: str, folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = logits(load(folder, cache))
    (file,) = kept(cache)
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "other values":
        # The exponents of all float32 become huge; the archive's ends stay as they are.
        exponents = range(65_536 + 3, len(content) - 65_536, 4)
        content[exponents.start : exponents.stop : 4] = b"\x7e" * len(exponents)
    else:
        content = bytearray()
    file.unlink()  # The first model still has it mapped.
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        again = load(folder, cache)
    assert "are damaged" in caplog.text
    assert torch.equal(logits(again), expected)
    caplog.clear()
    load(folder, cache)
    assert not caplog.text


def test_a_changed_model_is_packed_again_and_replaces_the_old_one(
    folder: Path, cache: Path
) -> None:
    before = logits(load(folder, cache))
    weights = folder / "model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    tensors["model.norm.weight"] *= 1.5
    save_file(tensors, weights, {"format": "pt"})
    assert not torch.equal(logits(load(folder, cache)), before)
    assert kept(cache) == [packed_file(folder, str(cache))]


def test_the_weights_of_a_removed_model_are_removed(
    folder: Path, tiny_folder: str, cache: Path
) -> None:
    load(folder, cache)
    shutil.rmtree(folder)
    load(Path(tiny_folder), cache)
    assert kept(cache) == [packed_file(Path(tiny_folder), str(cache))]
    assert len(list((cache / "packed").iterdir())) == 1


def test_a_cache_that_cannot_be_written_costs_only_time(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        model = load(folder, cache)
    assert isinstance(model, PackedModel)
    assert "cannot be kept" in caplog.text


def test_a_removed_model_is_not_served_from_the_cache(folder: Path, cache: Path) -> None:
    load(folder, cache)
    shutil.rmtree(folder)
    with pytest.raises(EngineError, match="cannot be loaded"):
        load(folder, cache)

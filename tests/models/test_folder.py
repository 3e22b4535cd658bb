"""What is wrong with a model folder is said at once, not by a stack trace while loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from plato.errors import ModelError
from plato.models.folder import check_model_folder


@pytest.fixture
def folder(tiny_model_folder: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def shard(folder: Path, *names: str) -> None:
    """Turn the weights into one file for each of `names`, the first with all tensors."""
    (folder / "model.safetensors").rename(folder / names[0])
    mapping = {f"tensor{i}": name for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))


def test_a_saved_model_passes(folder: Path) -> None:
    check_model_folder(folder)


def test_a_model_in_several_files_passes(folder: Path) -> None:
    shard(folder, "model-00001.safetensors", "model-00002.safetensors")
    shutil.copy(folder / "model-00001.safetensors", folder / "model-00002.safetensors")
    check_model_folder(folder)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", r"has no \*.safetensors"),
    ],
)
def test_a_missing_piece_is_named(folder: Path, file: str, message: str) -> None:
    (folder / file).unlink()
    with pytest.raises(ModelError, match=message):
        check_model_folder(folder)


def test_without_weights_the_rest_has_to_be_there(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    check_model_folder(folder, weights=False)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        check_model_folder(folder, weights=False)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard(folder, "model-00001.safetensors", "model-00002.safetensors")
    with pytest.raises(ModelError, match=r"has no model-00002\.safetensors"):
        check_model_folder(folder)


def test_weights_cut_short_are_noticed(folder: Path) -> None:
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size - 1)
    with pytest.raises(ModelError, match=r"invalid model\.safetensors"):
        check_model_folder(folder)


@pytest.mark.parametrize("content", [b"", b"version https://an.example/lfs\noid 1\n", bytes(64)])
def test_what_is_not_safetensors_is_noticed(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"invalid model\.safetensors"):
        check_model_folder(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_configuration_is_noticed(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match=r"invalid config\.json"):
        check_model_folder(folder)


def test_a_gguf_file_alone_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="GGUF"):
        check_model_folder(tmp_path)

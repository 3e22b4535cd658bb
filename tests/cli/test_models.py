"""The models of this machine, in caches of the test's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.cli.running import plato, printed, refused

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tiny_model_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with the tiny model as `owner/tiny`, and one with half a model."""
    cache = tmp_path / "hub"
    for name in ("tiny", "half"):
        repository = cache / f"models--owner--{name}"
        folder = repository / "snapshots" / COMMIT
        shutil.copytree(tiny_model_folder, folder)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("PLATO_CACHE_DIR", str(tmp_path / "plato"))
    return cache


def test_whole_models_are_listed(hub: Path) -> None:
    (found,) = printed("models", "ls")
    assert (found["name"], found["revision"]) == ("owner/tiny", COMMIT)
    assert found["bytes"] > 1_000_000
    line = plato("models", "ls").stdout.splitlines()[1]
    assert line.startswith(f"owner/tiny  {COMMIT[:12]} ")


def test_a_model_is_described(hub: Path, tiny_model_folder: str) -> None:
    for name in ("owner/tiny", tiny_model_folder):
        facts = printed("models", "show", name)
        assert (facts["architecture"], facts["context_length"]) == ("LlamaForCausalLM", 2048)
        assert facts["parameters"] > 100_000
    assert "plato models pull owner/half" in refused("models", "show", "owner/half")


def test_a_model_is_deleted_when_that_is_confirmed(hub: Path) -> None:
    assert plato("models", "rm", "owner/tiny", stdin="n\n").exit_code == 1
    assert (hub / "models--owner--tiny").exists()
    deleted = plato("models", "rm", "owner/tiny", "--yes")
    assert deleted.stdout.startswith("deleted owner/tiny (")
    assert not (hub / "models--owner--tiny").exists()
    assert "is not in the caches" in refused("models", "rm", "owner/tiny", "--yes")


def test_a_model_that_is_here_is_not_downloaded(hub: Path, tiny_model_folder: str) -> None:
    pulled = plato("models", "pull", "owner/tiny")
    assert pulled.stdout.strip() == str(hub / "models--owner--tiny" / "snapshots" / COMMIT)
    assert refused("models", "pull", "./nowhere", code=1).startswith("the model './nowhere' is not")

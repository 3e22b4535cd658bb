"""Names of models that need no network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from plato.errors import ModelError
from plato.models import resolve_model
from plato.models.adapter import ModelFiles
from plato.settings import Settings


def test_a_local_folder_is_used_as_it_is(tiny_model_folder: str) -> None:
    assert resolve_model(tiny_model_folder) == Path(tiny_model_folder)


def test_a_folder_without_weights_is_enough_in_front_of_other_servers(
    tiny_model_folder: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    whole = ModelFiles.resolve(upstream(folder))
    (folder / "model.safetensors").unlink()
    files = ModelFiles.resolve(upstream(folder))
    assert files.folder == folder
    # Processes with and without the weights on their disks have the same model.
    assert files.fingerprint("auto") == whole.fingerprint("auto")
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        ModelFiles.resolve(Settings(model=str(folder), adapter="none"))


def upstream(folder: Path) -> Settings:
    return Settings(model=str(folder), engine="openai", upstreams=("http://127.0.0.1:9",))


def test_a_relative_folder_becomes_absolute(
    tiny_model_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A deployment's replicas run in another working folder.
    folder = Path(tiny_model_folder)
    monkeypatch.chdir(folder.parent)
    assert resolve_model(folder.name) == folder


def test_an_incomplete_local_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize("name", ["/no/such/folder", "./missing", "../missing", "~/no-such-model"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        resolve_model(name)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="is not a folder"):
        resolve_model(str(tmp_path / "model.gguf"))


def test_what_cannot_be_a_name_is_refused() -> None:
    with pytest.raises(ModelError, match="neither a folder nor a model"):
        resolve_model("three/part/name")


def test_a_folder_has_no_revisions(tiny_model_folder: str) -> None:
    with pytest.raises(ModelError, match=r"model_revision is 'v1'.*leave model_revision out"):
        resolve_model(tiny_model_folder, None, "v1")

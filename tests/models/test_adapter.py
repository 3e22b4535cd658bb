"""Which adapter a model gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from plato.errors import ModelError
from plato.models import adapter as module
from plato.models.adapter import CONFIG, WEIGHTS, ModelFiles, find_adapter
from plato.settings import DEFAULT_MODEL, Settings


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / CONFIG).write_text('{"peft_type": "LORA"}')
    (folder / WEIGHTS).write_bytes(b"\2\0\0\0\0\0\0\0{}")
    return folder


def test_the_bundled_one_is_for_the_default_model_alone(
    adapter: Path, tiny_model_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUNDLED", adapter)
    assert find_adapter(Settings(model=DEFAULT_MODEL)) == adapter
    assert find_adapter(Settings(model=DEFAULT_MODEL, adapter="none")) is None
    assert find_adapter(Settings(model=tiny_model_folder)) is None
    assert find_adapter(Settings(model=DEFAULT_MODEL, engine="package.module:name")) is None


def test_one_that_is_still_being_made_is_not_used(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUNDLED", adapter)
    (adapter / CONFIG).unlink()
    assert find_adapter(Settings(model=DEFAULT_MODEL)) is None


def test_a_folder_is_used_for_any_model(adapter: Path, tiny_model_folder: str) -> None:
    settings = Settings(model=tiny_model_folder, adapter=str(adapter))
    assert find_adapter(settings) == adapter


def test_vllm_uses_the_same_ones(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUNDLED", adapter)
    assert find_adapter(Settings(engine="vllm")) == adapter
    assert find_adapter(Settings(engine="vllm", adapter=str(adapter))) == adapter


def test_an_engine_that_uses_none_is_refused(adapter: Path) -> None:
    with pytest.raises(ModelError, match=r"only the engines torch and vllm use adapters"):
        find_adapter(Settings(engine="package.module:name", adapter=str(adapter)))


def test_it_is_part_of_the_fingerprint_and_its_report_is_not(
    adapter: Path, tiny_model_folder: str
) -> None:
    def fingerprint(**fields: str) -> str:
        settings = Settings(model=tiny_model_folder, **fields)
        return ModelFiles.resolve(settings).fingerprint("int8")

    before = fingerprint(adapter=str(adapter))
    assert before != fingerprint()
    (adapter / "report.json").write_text("{}")
    assert fingerprint(adapter=str(adapter)) == before
    (adapter / "plato.json").write_text("{}")
    assert fingerprint(adapter=str(adapter)) not in (before, fingerprint())


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_what_is_missing_is_named(missing: str, adapter: Path) -> None:
    (adapter / missing).unlink()
    with pytest.raises(ModelError, match=rf"has no {missing}; use a folder with"):
        find_adapter(Settings(adapter=str(adapter)))


@pytest.mark.parametrize("content", ["", "[]", "{}", "7", '{"peft_type": []}'])
def test_a_configuration_of_something_else_is_refused(content: str, adapter: Path) -> None:
    (adapter / CONFIG).write_text(content)
    with pytest.raises(ModelError, match=rf"{CONFIG} (is not the configuration|has an invalid)"):
        find_adapter(Settings(adapter=str(adapter)))


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"\xff\0\0\0\0\0\0\0{}"])
def test_truncated_weights_are_refused(content: bytes, adapter: Path) -> None:
    (adapter / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="truncated or not safetensors"):
        find_adapter(Settings(adapter=str(adapter)))

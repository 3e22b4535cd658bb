"""Which adapter is merged into a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plato.errors import ModelError
from plato.models.adapter import CONFIG, WEIGHTS, ModelFiles, bundled_adapter, find_adapter
from plato.settings import DEFAULT_MODEL, Settings


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / CONFIG).write_text('{"peft_type": "LORA"}')
    (folder / WEIGHTS).write_bytes(b"\2\0\0\0\0\0\0\0{}")
    return folder


def test_the_default_model_comes_with_one_and_others_do_not(tiny_model_folder: str) -> None:
    assert find_adapter(Settings()) == bundled_adapter(DEFAULT_MODEL)
    assert find_adapter(Settings(adapter="none")) is None
    assert find_adapter(Settings(model=tiny_model_folder)) is None


def test_a_folder_is_used_for_any_model(adapter: Path, tiny_model_folder: str) -> None:
    settings = Settings(model=tiny_model_folder, adapter=str(adapter))
    assert find_adapter(settings) == adapter


def test_it_is_part_of_the_fingerprint(adapter: Path, tiny_model_folder: str) -> None:
    def fingerprint(**fields: str) -> str:
        settings = Settings(model=tiny_model_folder, **fields)
        return ModelFiles.resolve(settings).fingerprint("int8")

    before = fingerprint(adapter=str(adapter))
    assert before != fingerprint()
    (adapter / CONFIG).write_text('{"peft_type": "LORA", "r": 8}')
    assert fingerprint(adapter=str(adapter)) not in (before, fingerprint())


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        (CONFIG, f"no {CONFIG}"),
        (WEIGHTS, f"no {WEIGHTS}"),
    ],
)
def test_what_is_missing_is_named(missing: str, problem: str, adapter: Path) -> None:
    (adapter / missing).unlink()
    with pytest.raises(ModelError, match=rf"which has {problem}; use a folder with .*, or none"):
        find_adapter(Settings(adapter=str(adapter)))


@pytest.mark.parametrize("content", ["", "[]", "{}", "7"])
def test_a_configuration_of_something_else_is_refused(content: str, adapter: Path) -> None:
    (adapter / CONFIG).write_text(content)
    with pytest.raises(ModelError, match="is not the configuration of an adapter"):
        find_adapter(Settings(adapter=str(adapter)))


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "XLORA"])
def test_what_cannot_be_merged_is_refused(kind: str, adapter: Path) -> None:
    (adapter / CONFIG).write_text(json.dumps({"peft_type": kind}))
    with pytest.raises(ModelError, match=f"of type {kind}, which cannot be merged"):
        find_adapter(Settings(adapter=str(adapter)))

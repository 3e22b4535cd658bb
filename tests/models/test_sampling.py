"""How a model samples unless a request says otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plato.engine import SamplingParams
from plato.errors import ModelError
from plato.models.sampling import RECOMMENDED, default_sampling
from plato.settings import DEFAULT_MODEL, Settings

QWEN = {
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "repetition_penalty": 1.1,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "transformers_version": "4.37.0",
}
"""Of Qwen2.5-0.5B-Instruct."""
AS_QWEN = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1}


def sampling(folder: Path, content: object = None, **settings: Any) -> SamplingParams:
    """The defaults of a model with this `generation_config.json`."""
    if content is not None:
        (folder / "generation_config.json").write_text(json.dumps(content))
    return default_sampling(Settings(**{"model": str(folder), **settings}), folder)


def test_it_is_as_the_makers_say(tmp_path: Path) -> None:
    assert sampling(tmp_path, QWEN) == SamplingParams(**AS_QWEN)


@pytest.mark.parametrize(
    "content",
    [None, {}, {"do_sample": False}, {"temperature": None, "top_k": None}, {"top_k": -1}],
)
def test_what_they_leave_out_is_neutral_as_in_vllm(tmp_path: Path, content: object) -> None:
    assert sampling(tmp_path, content) == SamplingParams(temperature=1.0)


def test_do_sample_is_ignored_as_in_vllm(tmp_path: Path) -> None:
    content = {"do_sample": False, "temperature": 0.6}
    assert sampling(tmp_path, content).temperature == 0.6


def test_settings_replace_what_they_say_field_by_field(tmp_path: Path) -> None:
    used = sampling(tmp_path, QWEN, temperature=0, top_k=0, min_p=0.1)
    assert used == SamplingParams(**AS_QWEN | {"temperature": 0.0, "top_k": 0, "min_p": 0.1})


def test_the_environment_sets_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATO_TEMPERATURE", "0.3")
    assert sampling(tmp_path, QWEN).temperature == 0.3


def test_recommendations_are_for_the_default_model_alone_and_under_the_settings(
    tmp_path: Path, model_folder: str
) -> None:
    recommended = RECOMMENDED[DEFAULT_MODEL].sampling
    assert sampling(Path(model_folder), model=DEFAULT_MODEL) == SamplingParams(**recommended)
    changed = sampling(Path(model_folder), model=DEFAULT_MODEL, repetition_penalty=1.0)
    assert changed == SamplingParams(**recommended | {"repetition_penalty": 1.0})
    assert sampling(tmp_path).repetition_penalty == 1.0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "download it again"),
        (b"[]", "correct it"),
        (b'{"temperature": "warm"}', r"temperature: .*; correct it"),
        (b'{"top_p": 1.5}', r"top_p: .* less than or equal to 1; correct it"),
        (b'{"repetition_penalty": 0}', r"repetition_penalty: .*; correct it"),
    ],
)
def test_an_invalid_file_is_a_clear_error(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "generation_config.json").write_bytes(content)
    with pytest.raises(ModelError, match=rf"generation_config\.json in .* is invalid .*{problem}"):
        sampling(tmp_path)

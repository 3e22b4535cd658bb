"""`python -m plato.models`: the model is there, or what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from plato.models.__main__ import main


def test_it_prints_the_models_folder(
    tiny_model_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLATO_MODEL", tiny_model_folder)
    assert main() == 0
    assert capsys.readouterr().out.strip() == tiny_model_folder


def test_it_fails_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLATO_MODEL", str(tmp_path))
    assert main() == 1
    assert str(tmp_path) in capsys.readouterr().err

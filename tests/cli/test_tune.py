"""Tuning by the command."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from tests.cli.running import plato


@pytest.fixture(autouse=True)
def model(tiny_model_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model."""
    monkeypatch.setenv("PLATO_MODEL", tiny_model_folder)
    monkeypatch.setenv("PLATO_NODE_MAX_TOKENS", "6")
    monkeypatch.setenv("PLATO_KV_BUDGET_MB", "16")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A few examples of every kind."""
    file = tmp_path / "own.jsonl"
    lines = (files("plato.tuning") / "data" / "examples.jsonl").read_text("utf-8").splitlines()
    file.write_text("\n".join(lines[::20]), "utf-8")
    return file


def test_its_adapter_can_be_used(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "adapter"
    options = ("--data", str(data), "--epochs", "1", "--kl-weight", "0", "--rank", "2")
    result = plato("tune", str(out), *options)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout).keys() == {"calibration", "dependencies", "losses"}
    assert f"PLATO_ADAPTER={out}" in result.stderr
    monkeypatch.setenv("PLATO_ADAPTER", str(out))
    assert plato("ask", "Why is the sea salty?", "--local", "--mode", "sequential").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "wrong", "code"),
    [
        (("--data", "none.jsonl"), "none.jsonl cannot be read", 2),
        (("--initial", "none"), "none has no adapter_config.json", 1),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: tuple[str, ...], wrong: str, code: int, tmp_path: Path
) -> None:
    result = plato("tune", str(tmp_path / "out"), *arguments)
    assert result.exit_code == code
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("plato: ")]
    assert wrong in line

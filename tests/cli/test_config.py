"""What settings there are, and where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from plato.settings import Settings
from tests.cli.running import plato, printed, refused


def test_every_setting_has_a_value_and_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plato.toml"
    file.write_text('planners = 2\nmax_nodes = 5\nredis_url = "redis://:secret@host"\n')
    monkeypatch.setenv("PLATO_MAX_NODES", "6")
    monkeypatch.setenv("PLATO_API_KEYS", "shop=0123456789abcdef")
    shown = printed("config", "show", "--config", str(file))
    assert shown.keys() == Settings.model_fields.keys()
    assert shown["planners"] == {"value": 2, "source": str(file)}
    assert shown["max_nodes"] == {"value": 6, "source": "PLATO_MAX_NODES"}
    assert shown["decoders"] == {"value": 1, "source": "default"}
    assert shown["api_keys"]["value"] == "(secret)"
    table = plato("config", "show", "--config", str(file)).stdout
    assert "0123456789abcdef" not in table
    (line,) = [line for line in table.splitlines() if line.startswith("  max_nodes ")]
    assert line.split() == ["max_nodes", "6", "PLATO_MAX_NODES"]


def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATO_DECODERS", "0")
    assert refused("config", "show") == (
        "PLATO_DECODERS is '0'; it takes a whole number, at least 1"
    )

"""No settings of the user's."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variables of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("PLATO_")]:
        monkeypatch.delenv(name)

"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """Plato works, but worse than it could, or not in every way."""
    ERROR = "error"
    """`plato serve` would fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Level
    what: str
    """What was looked at, in a word or two."""
    found: str
    advice: str


def ok(what: str, found: str, advice: str) -> Finding:
    """All is well; `advice` says what could be wanted nevertheless."""
    return Finding(Level.OK, what, found, advice)


def warning(what: str, found: str, advice: str) -> Finding:
    """Something could be better."""
    return Finding(Level.WARNING, what, found, advice)


def error(what: str, found: str, advice: str) -> Finding:
    """Something has to be changed."""
    return Finding(Level.ERROR, what, found, advice)

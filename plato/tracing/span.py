"""A span as plain data, until it is exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | bool | int | float | tuple[str, ...] | tuple[int, ...]
Attributes = Mapping[str, Value | None]
"""`None` is left out."""


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """Something that happened at one moment of a span."""

    name: str
    at_s: float
    attributes: Attributes


@dataclass(slots=True)
class Span:
    """A span and those below it. Times are Unix times in seconds."""

    name: str
    start_s: float
    end_s: float
    attributes: dict[str, Value | None] = field(default_factory=dict)
    events: list[SpanEvent] = field(default_factory=list)
    children: list[Span] = field(default_factory=list)
    error: str | None = None
    """Why it failed, if it did."""

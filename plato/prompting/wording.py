"""The words around a question that make a model write one part of the answer."""

from __future__ import annotations

SYSTEM = "SYS"
HEADING = "\n\nParts of the answer:\n"
CUT = " [...] "


def title(number: int, title: str) -> str:
    return f"{number}. {title}\n"


def quote(number: int, title: str) -> str:
    return f"\nPart {number}, {title}:\n"


def instruction(number: int, title: str) -> str:
    return f"\nWrite part {number}: {title}"

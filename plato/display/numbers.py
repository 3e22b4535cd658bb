"""Numbers in sentences."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby


def listed(numbers: Iterable[int]) -> str:
    """Ascending numbers, three or more in a row as a range: `1, 2, 4-7`."""
    items: list[str] = []
    for _, row in groupby(enumerate(numbers), key=lambda item: item[1] - item[0]):
        run = [str(number) for _, number in row]
        items += run if len(run) < 3 else [f"{run[0]}-{run[-1]}"]
    return ", ".join(items)


def counted(number: int, thing: str) -> str:
    """`1 token`, `2 tokens`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"

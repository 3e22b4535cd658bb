"""Texts as they arrive: in pieces of any size."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise


def cut(text: str, places: Iterable[int]) -> list[str]:
    edges = [0, *sorted(place for place in places if place < len(text)), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]

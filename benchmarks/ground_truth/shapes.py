"""Random dependency graphs with a given number of dependencies and a given depth."""

from __future__ import annotations

import random

Shape = tuple[tuple[int, ...], ...]
"""The dependencies of part 1, 2, 3, ...: numbers of earlier parts, ascending."""

MAX_DEPENDENCIES = 8
MAX_DEPTH = 4
MAX_PARTS = 8
"""What servers accept unless configured otherwise."""
INDEPENDENT_PARTS = 3
"""Parts of a graph without dependencies."""


def combinations() -> tuple[tuple[int, int], ...]:
    """All (dependencies, depth) that a graph with one root can have, within the maxima."""
    return (
        (0, 1),
        *(
            (dependencies, depth)
            for dependencies in range(1, MAX_DEPENDENCIES + 1)
            for depth in range(2, min(dependencies + 1, MAX_DEPTH) + 1)
            # At depth 2 every dependency is a part of its own.
            if depth > 2 or dependencies < MAX_PARTS
        ),
    )


def draw_shape(chance: random.Random, dependencies: int, depth: int) -> Shape:
    """A graph in which every part needs part 1, directly or not; without dependencies, 3 parts.

    `depth` counts the parts on the longest path. Raises `ValueError` if there is no such graph.
    """
    if (dependencies, depth) not in combinations():
        raise ValueError(
            f"no graph with one root has {dependencies} dependencies and depth {depth}; "
            f"choose from {combinations()}"
        )
    if not dependencies:
        return ((),) * INDEPENDENT_PARTS
    while True:
        parts = chance.randint(depth, min(dependencies + 1, MAX_PARTS))
        # Level 1 is part 1 alone; every other level has at least one part.
        levels = [*range(1, depth + 1), *(chance.randint(2, depth) for _ in range(parts - depth))]
        levels.sort()
        numbered = list(enumerate(levels, start=1))
        edges = {
            (chance.choice([n for n, level in numbered if level == own - 1]), number)
            for number, own in numbered[1:]
        }
        spare = [
            (earlier, number)
            for number, own in numbered
            for earlier, level in numbered
            if level < own and (earlier, number) not in edges
        ]
        missing = dependencies - len(edges)
        if missing > len(spare):
            continue
        edges |= set(chance.sample(spare, missing))
        return tuple(
            tuple(sorted(earlier for earlier, later in edges if later == number))
            for number, _ in numbered
        )

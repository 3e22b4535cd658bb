"""The fixed workload: questions with plans, and a token count for every part."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.report import read_jsonl
from plato.runs import Node

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
"""Where questions lie that are not part of the project; it may be missing."""
GRAPHS = Path(__file__).parents[1] / "data" / "graphs.jsonl"
_tenants = itertools.count(1)


def fresh_tenant() -> str:
    """A tenant that nobody has cached anything for."""
    return f"tenant-{next(_tenants)}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True, slots=True)
class FixedGraph:
    """One question of the workload."""

    name: str
    kind: str
    """`independent`, `mixed` or `chain`."""
    question: str
    nodes: tuple[Node, ...]

    def scaled(self, factor: float) -> tuple[Node, ...]:
        """Its plan, with every part's length times `factor`."""
        return tuple(
            Node(
                node.number,
                node.title,
                node.dependencies,
                max(1, round((node.max_tokens or 1) * factor)),
            )
            for node in self.nodes
        )


def fixed_graphs(path: Path = GRAPHS) -> tuple[FixedGraph, ...]:
    """The graphs in a file of JSON lines; see `benchmarks/data/graphs.jsonl`."""
    return tuple(
        FixedGraph(
            entry["name"],
            entry["kind"],
            entry["question"],
            tuple(
                Node(number, part["title"], tuple(part["dependencies"]), part["tokens"])
                for number, part in enumerate(entry["nodes"], start=1)
            ),
        )
        for entry in read_jsonl(path)
    )

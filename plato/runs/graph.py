"""The plan graph: the nodes of an answer and their dependencies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import networkx as nx

from plato.errors import InvalidPlanError


class Length(StrEnum):
    """How long a part of the answer will be, compared with the others."""

    SHORT = "short"
    MEDIUM = "medium"
    LONG = "long"


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the plan; its text is one part of the answer."""

    number: int
    """1-based, in plan order."""
    title: str
    dependencies: tuple[int, ...] = ()
    """Numbers of the nodes whose text this one needs, ascending; all smaller than `number`."""
    max_tokens: int | None = None
    """The node's own token budget, if the caller gave one."""
    length: Length | None = None
    """Its expected length, if the plan says so."""


class PlanGraph:
    """Nodes in plan order, and their dependencies; acyclic by construction.

    Nodes are added while the plan is being decoded: queries cover the nodes known so far.
    """

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self._graph: nx.DiGraph[int] = nx.DiGraph()
        self._nodes: dict[int, Node] = {}
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        """Append `node`. Raises `InvalidPlanError` if it does not follow from the nodes so far."""
        if node.number in self._nodes:
            raise _invalid(node, "appears twice; number the parts 1, 2, 3, ... in order")
        if node.number != len(self._nodes) + 1:
            raise _invalid(node, "is out of order; number the parts 1, 2, 3, ... in order")
        if not node.title.strip():
            raise _invalid(node, "has no title")
        for dependency in node.dependencies:
            if dependency >= node.number:
                raise _invalid(
                    node,
                    f"depends on part {dependency}, which does not come before it; a part may "
                    "need only parts with smaller numbers",
                )
            if dependency not in self._nodes:
                raise _invalid(node, f"depends on part {dependency}, which does not exist")
        if len(set(node.dependencies)) != len(node.dependencies):
            raise _invalid(node, "names a dependency twice")
        self._nodes[node.number] = node
        self._graph.add_node(node.number)
        self._graph.add_edges_from((dependency, node.number) for dependency in node.dependencies)

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __contains__(self, number: int) -> bool:
        return number in self._nodes

    def __getitem__(self, number: int) -> Node:
        return self._nodes[number]

    @property
    def graph(self) -> nx.DiGraph[int]:
        """The dependencies as a networkx graph over node numbers; do not change it."""
        return self._graph

    def ancestors(self, number: int) -> frozenset[int]:
        """All nodes that `number` needs, directly or through others."""
        return frozenset(nx.ancestors(self._graph, number))

    def dependents(self, number: int) -> tuple[int, ...]:
        """The nodes that need `number` directly, ascending."""
        return tuple(sorted(self._graph.successors(number)))

    def heights(self) -> dict[int, int]:
        """For every node the number of nodes on the longest path that starts at it.

        The critical-path priority of list scheduling (Graham, 1969).
        """
        heights: dict[int, int] = {}
        for number in reversed(self._nodes):
            below = (heights[successor] for successor in self._graph.successors(number))
            heights[number] = 1 + max(below, default=0)
        return heights


def _invalid(node: Node, reason: str) -> InvalidPlanError:
    return InvalidPlanError(f"part {node.number} {reason}", param="plato.plan")

"""Plans that a caller hands in, as nodes or in the plan language."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from plato.errors import InvalidPlanError
from plato.planning.grammar import END, MIN_NODES, ONE
from plato.planning.parser import PlanParser, title_problem
from plato.runs import Node, PlanGraph
from plato.settings import MAX_TITLE_CHARS


def validate_plan(nodes: Iterable[Node], max_nodes: int) -> tuple[Node, ...]:
    """Check a plan handed in by a caller; returns its nodes in plan order.

    White space around titles goes, and dependencies are sorted. One part alone is accepted: the
    scheduler answers it sequentially and says so.

    Raises `InvalidPlanError`: too many parts or none, numbers that are not 1, 2, 3, ... in order,
    a dependency that is unknown, not smaller than its part, or named twice, a title that is
    empty, too long, or holds what the plan language uses itself.
    """
    graph = PlanGraph()
    for node in nodes:
        if len(graph) == max_nodes:
            raise InvalidPlanError(
                f"the plan has more than {max_nodes} parts; merge some, or raise `max_nodes`",
                param="plato.plan",
            )
        title = node.title.strip()
        problem = title_problem(title, MAX_TITLE_CHARS)
        if problem is not None:
            raise InvalidPlanError(f"part {node.number}: {problem}", param="plato.plan")
        if node.max_tokens is not None and node.max_tokens < 1:
            raise InvalidPlanError(
                f"part {node.number}: max_tokens is {node.max_tokens}; it must be at least 1",
                param="plato.plan",
            )
        dependencies = tuple(sorted(node.dependencies))
        graph.add(replace(node, title=title, dependencies=dependencies))
    if not len(graph):
        raise InvalidPlanError(
            "the plan has no parts; give at least two, or omit the plan", param="plato.plan"
        )
    return tuple(graph)


def validate_script(nodes: tuple[Node, ...]) -> None:
    """Check that the planner could have written a plan that `validate_plan` accepts.

    Raises `InvalidPlanError`: too few parts, or two of the same title, which end a plan.
    """
    if len(nodes) < MIN_NODES:
        raise InvalidPlanError(
            f"the plan has {len(nodes)} parts, but a decoded plan has at least {MIN_NODES}; add "
            "some, or omit decode_plan",
            param="plato.decode_plan",
        )
    titles = [node.title.casefold() for node in nodes]
    if len(set(titles)) < len(titles):
        raise InvalidPlanError(
            "two parts have the same title, which ends a decoded plan; change one, or omit "
            "decode_plan",
            param="plato.decode_plan",
        )


def write_plan(nodes: Iterable[Node]) -> str:
    """A plan in the plan language; `read_plan` gives the nodes back, but for their budgets."""
    lines = [
        f"{node.number} | {','.join(map(str, node.dependencies)) or '-'} | {node.title}\n"
        for node in nodes
    ]
    return "".join(lines) + END


def read_plan(text: str, max_nodes: int) -> tuple[Node, ...]:
    """Read a whole plan in the plan language (`plato ask --plan FILE`).

    Raises `InvalidPlanError` with the number of the line that is wrong.
    """
    parser = PlanParser(max_nodes=max_nodes)
    parser.feed(text)
    parser.finish()
    if parser.one:
        raise InvalidPlanError(
            f"the plan is {ONE} (do not split); use mode `sequential` instead",
            param="plato.plan",
        )
    return parser.nodes

"""Plans given by a caller, as nodes or in the plan language."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from plato.errors import InvalidPlanError
from plato.planning.grammar import MIN_PARTS
from plato.planning.parser import ONE, parse_plan, title_problem
from plato.runs import Node, PlanGraph
from plato.settings import MAX_TITLE_CHARS


def validate_plan(nodes: Iterable[Node], max_nodes: int) -> tuple[Node, ...]:
    """Validate a plan given by a caller; returns its nodes in plan order.

    Strips white space around titles and sorts dependencies. A single node is accepted: the
    scheduler answers it sequentially and reports the reason.

    Raises `InvalidPlanError`: too many nodes or none; numbers other than 1, 2, 3, ... in order; a
    dependency that is unknown, not smaller than its node, or repeated; a title that is empty, too
    long, or contains characters reserved by the plan language.
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

    Raises `InvalidPlanError`: too few nodes.
    """
    if len(nodes) < MIN_PARTS:
        raise InvalidPlanError(
            f"the plan has {len(nodes)} parts, but a decoded plan has at least {MIN_PARTS}; add "
            "some, or omit decode_plan",
            param="plato.decode_plan",
        )


def read_plan(text: str, max_nodes: int) -> tuple[Node, ...]:
    """Read a whole plan in the plan language (`plato ask --plan FILE`).

    Raises `InvalidPlanError`, for an invalid line with its number.
    """
    nodes = parse_plan(text, max_nodes)
    if not nodes:
        raise InvalidPlanError(
            f"the plan is {ONE} (do not split); use mode `sequential` instead",
            param="plato.plan",
        )
    return nodes

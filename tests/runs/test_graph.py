"""The plan graph takes nodes in order, refuses what is no plan, and knows the longest paths."""

from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plato.errors import InvalidPlanError
from plato.runs import Node, PlanGraph

DIAMOND = (
    Node(1, "Ground"),
    Node(2, "Left", (1,)),
    Node(3, "Right", (1,)),
    Node(4, "Top", (2, 3)),
)


@st.composite
def plans(draw: st.DrawFn) -> tuple[Node, ...]:
    """Any plan of up to eight nodes."""
    nodes = []
    for number in range(1, draw(st.integers(1, 8)) + 1):
        smaller = range(1, number)
        chosen = draw(st.sets(st.sampled_from(smaller))) if smaller else set()
        nodes.append(Node(number, f"Part {number}", tuple(sorted(chosen))))
    return tuple(nodes)


def test_nodes_are_found_by_number_and_iterated_in_plan_order() -> None:
    graph = PlanGraph(DIAMOND)
    assert len(graph) == 4
    assert tuple(graph) == DIAMOND
    assert graph[3].title == "Right"
    assert 4 in graph
    assert 5 not in graph


def test_queries_answer_for_the_nodes_known_so_far() -> None:
    graph = PlanGraph()
    assert graph.heights() == {}
    seen = []
    for node in DIAMOND:
        graph.add(node)
        seen.append(graph.heights())
    assert seen == [{1: 1}, {1: 2, 2: 1}, {1: 2, 2: 1, 3: 1}, {1: 3, 2: 2, 3: 2, 4: 1}]


def test_ancestors_and_dependents() -> None:
    graph = PlanGraph(DIAMOND)
    assert graph.ancestors(4) == {1, 2, 3}
    assert graph.ancestors(1) == frozenset()
    assert graph.dependents(1) == (2, 3)
    assert graph.dependents(4) == ()


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Node(2, "Again"), "part 2 appears twice"),
        (Node(6, "Too far"), "part 6 is out of order"),
        (Node(0, "Nothing"), "part 0 is out of order"),
        (Node(5, "  "), "part 5 has no title"),
        (Node(5, "Itself", (5,)), "part 5 depends on part 5, which does not come before it"),
        (Node(5, "Ahead", (6,)), "part 5 depends on part 6, which does not come before it"),
        (Node(5, "Unknown", (0,)), "part 5 depends on part 0, which does not exist"),
        (Node(5, "Twice", (1, 1)), "part 5 names a dependency twice"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(node: Node, message: str) -> None:
    graph = PlanGraph(DIAMOND)
    with pytest.raises(InvalidPlanError, match=message) as error:
        graph.add(node)
    assert error.value.param == "plato.plan"
    assert error.value.status == 400
    assert tuple(graph) == DIAMOND
    assert graph.graph.number_of_edges() == 4


@settings(deadline=None)
@given(plans())
def test_every_plan_is_acyclic_and_heights_are_longest_paths(nodes: tuple[Node, ...]) -> None:
    graph = PlanGraph(nodes)
    assert nx.is_directed_acyclic_graph(graph.graph)
    heights = graph.heights()
    assert max(heights.values()) == nx.dag_longest_path_length(graph.graph) + 1
    for node in nodes:
        below = [heights[number] for number in graph.dependents(node.number)]
        assert heights[node.number] == 1 + max(below, default=0)
        assert set(node.dependencies) <= graph.ancestors(node.number)

"""What a planner is asked; a stand-in notes it, and chooses by rule."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from benchmarks.planning.asking import PlanAsker, each
from benchmarks.planning.labelled import LabelledPlan
from plato.planning.protocol import PlanEvent, PlanRequest
from plato.runs import Node
from plato.settings import Settings


class Chooser:
    """Chooses every part before as a dependency."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[Node, ...], str]] = []

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent]:
        raise NotImplementedError
        yield

    async def dependencies(
        self, request: PlanRequest, nodes: tuple[Node, ...], title: str
    ) -> tuple[int, ...]:
        self.asked.append((request.messages[-1].content, nodes, title))
        return tuple(node.number for node in nodes)


async def test_dependencies_are_asked_for_with_those_chosen_before_and_not_the_true_ones() -> None:
    planner = Chooser()
    true = (Node(1, "Soil"), Node(2, "Water"), Node(3, "Sun", (1,)))
    asker = PlanAsker(planner, Settings())
    graph = await asker.dependencies(LabelledPlan("How to grow", "mixed", true))
    chosen = (Node(1, "Soil"), Node(2, "Water", (1,)), Node(3, "Sun", (1, 2)))
    assert tuple(graph) == chosen
    assert planner.asked == [
        ("How to grow?", chosen[:number], chosen[number].title) for number in range(3)
    ]


async def test_results_are_in_the_order_of_what_is_asked() -> None:
    async def double(number: int) -> int:
        return 2 * number

    assert await each("numbers", range(9), double, concurrency=3) == [*range(0, 18, 2)]

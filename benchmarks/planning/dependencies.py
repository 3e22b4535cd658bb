"""Dependencies of labelled plans, titles given: how they compare with what people wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.planning.labelled import SIDES, LabelledPlan
from plato.runs import Node, PlanGraph
from plato.tuning.measures import measure

Rule = Callable[[int], tuple[int, ...]]
"""The dependencies of a node by its number alone."""
BASELINES: Mapping[str, Rule] = {
    "chain": lambda number: tuple(range(max(1, number - 1), number)),
    "independent": lambda _: (),
    "two_then_chain": lambda number: {1: (), 2: (), 3: (1, 2)}.get(number, (number - 1,)),
}


def by_rule(rule: Rule, plan: LabelledPlan) -> PlanGraph:
    """The plan with the dependencies that a rule gives it."""
    return PlanGraph(Node(node.number, node.title, rule(node.number)) for node in plan.nodes)


def evaluate(
    plans: Sequence[LabelledPlan], predicted: Mapping[str, Sequence[PlanGraph]]
) -> dict[str, Any]:
    """The measures of every way to predict, by side of the data and kind of plan.

    `predicted` has a graph for each of `plans`, by way.
    """
    kinds = sorted({plan.kind for plan in plans})
    found: dict[str, Any] = {}
    for way, graphs in predicted.items():
        pairs = list(zip(plans, graphs, strict=True))
        found[way] = {}
        for side in SIDES:
            of_side = [pair for pair in pairs if pair[0].side == side]
            found[way][side] = {"all": measure_plans(of_side)} | {
                kind: measure_plans([pair for pair in of_side if pair[0].kind == kind])
                for kind in kinds
            }
    return found


def measure_plans(pairs: Sequence[tuple[LabelledPlan, PlanGraph]]) -> dict[str, Any]:
    """See `plato.tuning.measures.measure`."""
    return measure([(PlanGraph(plan.nodes), graph) for plan, graph in pairs])

"""Dependencies of labelled plans, titles given: how they compare with what people wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.planning.labelled import HALVES, LabelledPlan
from plato.runs import Node, PlanGraph

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
    """The measures of every way to predict, by half of the data and kind of plan.

    `predicted` has a graph for each of `plans`, by way.
    """
    kinds = sorted({plan.kind for plan in plans})
    found: dict[str, Any] = {}
    for way, graphs in predicted.items():
        pairs = list(zip(plans, graphs, strict=True))
        found[way] = {}
        for half in HALVES:
            of_half = [pair for pair in pairs if pair[0].half == half]
            found[way][half] = {"all": measure(of_half)} | {
                kind: measure([pair for pair in of_half if pair[0].kind == kind]) for kind in kinds
            }
    return found


def measure(pairs: Sequence[tuple[LabelledPlan, PlanGraph]]) -> dict[str, Any]:
    """What graphs that were predicted for labelled plans are worth; nothing is said of no plans.

    `edge_precision`, `edge_recall`, `edge_f1`: over the dependencies of all plans (micro).
    `dependency_recall`: share of the true dependencies that the graph honours, directly or through
    other nodes. `parallelism_ratio`: mean number of parts per level, over that of the true graphs.
    What would be a share of nothing is None.
    """
    if not pairs:
        return {"plans": 0}
    common = true_edges = predicted_edges = honoured = 0
    parallelism, true_parallelism = [], []
    for plan, graph in pairs:
        true = PlanGraph(plan.nodes)
        wanted, found = set(true.graph.edges), set(graph.graph.edges)
        common += len(wanted & found)
        true_edges += len(wanted)
        predicted_edges += len(found)
        honoured += sum(needed in graph.ancestors(number) for needed, number in wanted)
        parallelism.append(_parts_per_level(graph))
        true_parallelism.append(_parts_per_level(true))
    return {
        "plans": len(pairs),
        "edge_precision": _share(common, predicted_edges),
        "edge_recall": _share(common, true_edges),
        "edge_f1": _share(2 * common, true_edges + predicted_edges),
        "dependency_recall": _share(honoured, true_edges),
        "parallelism_ratio": fmean(parallelism) / fmean(true_parallelism),
    }


def _parts_per_level(graph: PlanGraph) -> float:
    return len(graph) / max(graph.heights().values())


def _share(count: int, total: int) -> float | None:
    return count / total if total else None

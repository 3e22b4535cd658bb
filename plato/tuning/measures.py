"""How well predicted dependencies agree with those that people wrote."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from plato.runs import PlanGraph


def measure(pairs: Sequence[tuple[PlanGraph, PlanGraph]]) -> dict[str, Any]:
    """What predicted graphs are worth, as (true, predicted); nothing is said of no plans.

    `edge_precision`, `edge_recall`, `edge_f1`: over the dependencies of all plans (micro).
    `dependency_recall`: share of the true dependencies that the graph honours, directly or through
    other nodes. `parallelism_ratio`: mean number of parts per level, over that of the true graphs.
    What would be a share of nothing is None.
    """
    if not pairs:
        return {"plans": 0}
    common = true_edges = predicted_edges = honoured = 0
    parallelism, true_parallelism = [], []
    for true, graph in pairs:
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

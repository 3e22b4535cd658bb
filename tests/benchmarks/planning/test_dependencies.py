"""Measures of dependencies whose values can be counted by hand."""

from __future__ import annotations

import pytest

from benchmarks.planning.dependencies import BASELINES, by_rule, evaluate
from benchmarks.planning.dependencies import measure_plans as measure
from benchmarks.planning.labelled import LabelledPlan
from plato.runs import Node, PlanGraph

Needs = tuple[tuple[int, ...], ...]


def labelled(
    *needs: tuple[int, ...], kind: str = "mixed", task: str = "How to paint"
) -> LabelledPlan:
    return LabelledPlan(task, kind, nodes(*needs))


def nodes(*needs: tuple[int, ...]) -> tuple[Node, ...]:
    return tuple(Node(number, f"Part {number}", each) for number, each in enumerate(needs, start=1))


def test_precision_counts_predicted_dependencies_and_recall_true_ones() -> None:
    # True: 1-3, 2-3, 3-4. Predicted: 1-2, 2-3, 3-4: two of three, either way.
    found = measure([(labelled((), (), (1, 2), (3,)), PlanGraph(nodes((), (1,), (2,), (3,))))])
    assert (
        found["edge_precision"] == found["edge_recall"] == found["edge_f1"] == pytest.approx(2 / 3)
    )
    # 1-3 is honoured through 2.
    assert found["dependency_recall"] == 1
    # Four parts on four levels, against four on three.
    assert found["parallelism_ratio"] == pytest.approx(1 / (4 / 3))


def test_measures_are_over_all_dependencies_and_not_means_of_plans() -> None:
    found = measure(
        [
            (labelled((), (1,)), PlanGraph(nodes((), (1,)))),
            # None of its three is found; one is predicted that is not true.
            (labelled((), (1,), (1,), (1,)), PlanGraph(nodes((), (), (2,), ()))),
        ]
    )
    assert found["plans"] == 2
    assert found["edge_precision"] == pytest.approx(1 / 2)
    assert found["edge_recall"] == found["dependency_recall"] == pytest.approx(1 / 4)
    assert found["edge_f1"] == pytest.approx(2 / 6)
    # Mean parts per level 1 and 2, both times.
    assert found["parallelism_ratio"] == pytest.approx((1 + 2) / (1 + 2))


def test_a_share_of_nothing_is_none() -> None:
    found = measure([(labelled((), ()), PlanGraph(nodes((), ())))])
    assert found == {
        "plans": 1,
        "edge_precision": None,
        "edge_recall": None,
        "edge_f1": None,
        "dependency_recall": None,
        "parallelism_ratio": 1,
    }
    assert measure([]) == {"plans": 0}


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("chain", ((), (1,), (2,), (3,), (4,))),
        ("independent", ((), (), (), (), ())),
        ("two_then_chain", ((), (), (1, 2), (3,), (4,))),
    ],
)
def test_baselines_know_only_numbers(name: str, needs: Needs) -> None:
    graph = by_rule(BASELINES[name], labelled((), (1,), (1,), (2,), (2,)))
    assert tuple(node.dependencies for node in graph) == needs


def test_sides_and_kinds_are_measured_apart() -> None:
    plans = [
        labelled((), (1,), kind="chain", task="How to swim"),
        labelled((), (), kind="independent", task="How to swim"),
        labelled((), (1,), kind="chain", task="How to bake"),
    ]
    # Two tasks of different sides.
    assert [plan.side for plan in plans] == ["held_out", "held_out", "calibration"]
    predicted = {name: [by_rule(rule, plan) for plan in plans] for name, rule in BASELINES.items()}
    found = evaluate(plans, predicted)
    assert found.keys() == {"chain", "independent", "two_then_chain"}
    held_out = found["chain"]["held_out"]
    assert held_out["all"]["edge_f1"] == pytest.approx(2 / 3)
    assert held_out["chain"]["edge_f1"] == 1
    assert held_out["independent"]["edge_precision"] == 0
    assert found["chain"]["calibration"]["all"]["plans"] == 1
    assert found["chain"]["calibration"]["independent"] == {"plans": 0}

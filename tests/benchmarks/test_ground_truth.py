"""Tasks with known answers: their generator, their scoring, and the benchmark itself."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

from benchmarks.common.statistics import mcnemar
from benchmarks.ground_truth.__main__ import main
from benchmarks.ground_truth.evaluation import evaluate
from benchmarks.ground_truth.shapes import combinations, draw_shape
from benchmarks.ground_truth.tasks import CONSISTENCY, SUMS, Task, draw_tasks
from plato.planning.given import validate_plan
from plato.runs import PlanGraph
from plato.settings import Settings

KINDS = (CONSISTENCY, SUMS)


def both_kinds(count: int = 42, seed: int = 3) -> list[Task]:
    return [task for kind in KINDS for task in draw_tasks(kind, count, seed)]


def test_graphs_have_the_dependencies_and_the_depth_that_were_asked_for() -> None:
    for dependencies, depth in combinations():
        for seed in range(20):
            shape = draw_shape(random.Random(seed), dependencies, depth)
            assert sum(map(len, shape)) == dependencies
            levels: list[int] = []
            for needed in shape:
                levels.append(1 + max((levels[number - 1] for number in needed), default=0))
            assert max(levels) == depth
            assert all(shape[1:]) or not dependencies, "a part that needs nothing"
    assert {dependencies for dependencies, _ in combinations()} == set(range(9))
    assert {depth for _, depth in combinations()} == {1, 2, 3, 4}
    with pytest.raises(ValueError, match="choose from"):
        draw_shape(random.Random(0), 1, 3)


def test_the_same_seed_gives_the_same_tasks_and_another_one_others() -> None:
    for kind in KINDS:
        assert draw_tasks(kind, 42, 1) == draw_tasks(kind, 42, 1)
        assert draw_tasks(kind, 42, 1) != draw_tasks(kind, 42, 2)


def test_tasks_differ_cover_all_graphs_and_have_plans_that_a_server_accepts() -> None:
    tasks = both_kinds(210)
    assert len({task.question for task in tasks}) == len(tasks)
    assert {(task.dependencies, task.depth) for task in tasks} == set(combinations())
    for task in tasks:
        assert validate_plan(task.plan, Settings().max_nodes) == task.plan
        assert len(task.subjects) == len(task.plan)
        assert task.max_tokens > 0


def test_a_consistent_answer_names_one_place_that_the_question_does_not_name() -> None:
    task = next(task for task in draw_tasks(CONSISTENCY, 21, 1) if task.dependencies == 2)
    same = [
        "She lives in the town of Oakdale, Ohio.",
        "He was born in Oakdale.",
        "It is Oakdale City.",
    ]
    assert task.values(same) == ("Oakdale",) * 3
    assert task.correct(task.values(same))
    assert not task.correct(task.values([*same[:2], "He was born in Oakdale Hill."]))
    assert not task.correct(task.values([*same[:2], "He was born in a small town."]))
    given = f"He was born in {task.question.split()[0]}."
    assert task.values([given] * 3) == (None,) * 3


def test_parts_that_do_not_depend_on_each_other_may_differ_but_must_choose() -> None:
    task = next(task for task in draw_tasks(CONSISTENCY, 21, 1) if not task.dependencies)
    assert task.correct(["Rome", "Oslo", "Lima"])
    assert not task.correct(["Rome", "Oslo", None])


def test_a_sum_is_right_if_every_part_states_its_own_number() -> None:
    for task in draw_tasks(SUMS, 21, 1):
        stated = [f"It costs 1 + 2 = {number}. That is 99 cheap." for number in task.expected]
        assert task.correct(task.values(stated))
        assert not task.correct(task.values([*stated[:-1], "It costs 1000."]))
        graph = PlanGraph(task.plan)
        assert all(
            task.expected[number - 1] > task.expected[earlier - 1]
            for earlier, number in graph.graph.edges
        )


def test_parts_are_found_in_a_sequential_answer_by_their_number_or_their_subject() -> None:
    task = draw_tasks(CONSISTENCY, 3, 1)[2]
    first, second, third = task.subjects
    answer = f"1. The {first} lives in Rome.\n**2.** In Oslo.\n\nWell. The {third} lives in Lima."
    assert task.sections(answer) == (
        f"The {first} lives in Rome.",
        "In Oslo.",
        f" The {third} lives in Lima",
    )
    assert task.sections(f"The {second} is old. The {second} is wise.")[1] == f"The {second} is old"
    assert task.sections("") == ("", "", "")


def test_mcnemars_test_counts_only_pairs_that_differ() -> None:
    agree = [(True, True), (False, False)] * 10
    assert mcnemar(agree) == 1.0
    assert mcnemar([*agree, *[(True, False)] * 5]) == pytest.approx(2 / 2**5)
    assert mcnemar([(True, False), (False, True)] * 4) == 1.0
    assert mcnemar([(True, False)] * 9 + [(False, True)]) == pytest.approx(2 * 11 / 2**10)


def test_modes_are_compared_task_by_task() -> None:
    tasks = draw_tasks(CONSISTENCY, 21, 1)
    rows = [
        {
            "kind": CONSISTENCY,
            "mode": mode,
            "answered_as": mode,
            "dependencies": task.dependencies,
            "depth": task.depth,
            "correct": mode == "plato" or not task.dependencies,
            "values": ["Rome", *("Rome" if mode == "plato" else "Oslo" for _ in task.plan[1:])],
        }
        for mode in ("plato", "skeleton")
        for task in tasks
    ]
    metrics = evaluate(tasks, rows)
    assert metrics["consistency_plato_accuracy"] == 1.0
    assert metrics["consistency_skeleton_by_dependencies"]["0"] == 1.0
    assert metrics["consistency_skeleton_by_depth"] == {"1": 1.0, "2": 0.0, "3": 0.0, "4": 0.0}
    assert metrics["consistency_skeleton_minus_plato_from_3_dependencies"] == -1.0
    assert metrics["consistency_skeleton_minus_plato_mcnemar_p"] < 1e-4
    assert metrics["consistency_plato_choices_agree"] == 1.0
    assert metrics["consistency_chance"] < 1.0


def test_it_asks_every_task_in_every_mode(
    tiny_model_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report.json"
    command = (
        f"x --consistency 2 --sums 2 --json {report} model={tiny_model_folder} kv_budget_mb=16"
    )
    monkeypatch.setattr(sys, "argv", command.split())
    main()
    found = json.loads(report.read_text(encoding="utf-8"))
    assert len(found["rows"]) == 3 * 4
    planned = [row for row in found["rows"] if row["mode"] != "sequential"]
    assert all(row["answered_as"] == row["mode"] for row in planned)
    assert found["metrics"]["sums_plato_by_dependencies"].keys() == {"0", "1"}
    assert found["settings"]["sampling"]["repetition_penalty"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["model"], "NAME=VALUE"),
        (["--url", "http://127.0.0.1:1", "model=x"], "omit them, or --url"),
        (["modle=x"], "did you mean model"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert problem in capsys.readouterr().err

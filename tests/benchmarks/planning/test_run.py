"""`python -m benchmarks.planning` with a real runtime in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from benchmarks.planning.__main__ import main
from plato.models.calibration import Calibration

TASKS = [
    {
        "task": "How to bake bread",
        "kind": "mixed",
        "parts": [
            {"title": "Buy flour", "dependencies": []},
            {"title": "Heat the oven", "dependencies": []},
            {"title": "Bake the dough", "dependencies": [1, 2]},
        ],
    },
    {
        "task": "How to paint a wall",
        "kind": "chain",
        "parts": [
            {"title": "Clean the wall", "dependencies": []},
            {"title": "Paint it", "dependencies": [1]},
        ],
    },
]
QUESTIONS = {"Why is it cold?": 1, "What is rain?": 1, "How much is 2 + 2?": 0, "Who am I?": 0}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Input, by option."""
    contents = {
        "--data": "\n".join(map(json.dumps, TASKS)),
        "--questions": "\n".join(json.dumps({"question": text}) for text in QUESTIONS),
        "--labels": "\n".join(
            ["label;request", *(f"{fit};{text}" for text, fit in QUESTIONS.items())]
        ),
    }
    paths = {option: tmp_path / option.strip("-") for option in contents}
    for option, path in paths.items():
        path.write_text(contents[option])
    return {option: str(path) for option, path in paths.items()}


def measured(files: dict[str, str], folder: Path, *more: str) -> dict[str, Any]:
    path = folder / "report.json"
    main([*(item for pair in files.items() for item in pair), "--json", str(path), *more])
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def test_plans_and_decisions_of_a_model_are_measured(
    files: dict[str, str], tmp_path: Path, tiny_model_folder: str
) -> None:
    settings = [f"model={tiny_model_folder}", "served_model_name=small", "kv_budget_mb=64"]
    report = measured(files, tmp_path, "--only", "plans", *settings, "plan_parts=2")
    assert (report["benchmark"], report["model"]) == ("planning", "small")
    plans = report["metrics"]["plans"]
    assert {source: each["plans"] for source, each in plans.items()} == {
        "questions": 4,
        "tasks": 2,
        "all": 6,
    }
    assert [row["question"] for row in report["rows"]] == [
        *QUESTIONS,
        "How to bake bread?",
        "How to paint a wall?",
    ]
    assert all(len(row["titles"]) <= 2 for row in report["rows"])

    report = measured(files, tmp_path, "--only", "decisions", *settings, "split_threshold=0.3")
    decisions = report["metrics"]["decisions"]
    assert decisions["questions"] == 4
    assert decisions["settings_threshold"] == 0.3
    assert [row["question"] for row in report["rows"]] == list(QUESTIONS)
    assert all(0 <= row["one_probability"] <= 1 for row in report["rows"])


def test_the_calibrated_threshold_is_stored_with_the_adapter(
    files: dict[str, str],
    tmp_path: Path,
    tiny_model_folder: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapter = tmp_path / "adapter"
    untuned = AutoModelForCausalLM.from_pretrained(tiny_model_folder)
    get_peft_model(untuned, LoraConfig(r=1, target_modules="all-linear")).save_pretrained(adapter)
    before = Calibration(split_threshold=0.7, dependency_threshold=2.0)
    before.write(adapter)
    settings = [f"model={tiny_model_folder}", f"adapter={adapter}", "kv_budget_mb=64"]
    report = measured(files, tmp_path, "--only", "decisions", "--calibrate", *settings)
    found = report["metrics"]["decisions"]["calibrated_threshold"]
    assert Calibration.read(adapter) == replace(before, split_threshold=found)
    given = [item for pair in files.items() for item in pair]
    without = [*settings, "adapter=none"]
    arguments = [*given, "--only", "decisions", "--calibrate", *without]
    assert "needs an adapter" in refused(arguments, capsys)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code
    return capsys.readouterr().err


def test_bad_input_says_what_to_change(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [item for pair in files.items() for item in pair]
    assert "there is no setting max_node" in refused([*given, "max_node=2"], capsys)
    assert "0 is less than 1" in refused([*given, "--tasks", "0"], capsys)
    missing = {**files, "--data": str(tmp_path / "nothing")}
    assert "cannot be read" in refused([i for pair in missing.items() for i in pair], capsys)
    Path(files["--labels"]).write_text("label;request\n1;What is rain?\n")
    assert "question 1 has no label" in refused(given, capsys)

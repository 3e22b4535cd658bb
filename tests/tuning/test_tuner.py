"""Tuning learns, keeps what it should keep, and goes on after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from plato.errors import InvalidRequestError, ModelError
from plato.models.adapter import CONFIG, WEIGHTS, find_adapter
from plato.planning.calibration import Calibration
from plato.settings import Settings
from plato.tuning.examples import read_examples
from plato.tuning.options import TuneOptions
from plato.tuning.tuner import CHATS, CHECKPOINT, divide, tune

EXAMPLES = [example for example in read_examples() if len(example.plan) < 4][::40]
OPTIONS = TuneOptions(epochs=2, batch=4, rank=2, chats=4, chat_tokens=8, held_out=0.3, device="cpu")


def silent(what: str, share: float) -> None:
    pass


class StoppedError(Exception):
    pass


def interrupt_at(step: int) -> Callable[[str, float], None]:
    def progress(what: str, share: float) -> None:
        if what.startswith(f"Step {step} "):
            raise StoppedError

    return progress


@pytest.fixture(scope="module")
def made(tiny_model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned")
    tune(Path(tiny_model_folder), EXAMPLES, out, OPTIONS, silent)
    return out


def test_the_result_is_an_adapter_with_calibration_and_report(made: Path) -> None:
    assert {file.name for file in made.iterdir()} == {CONFIG, WEIGHTS, "plato.json", "report.json"}
    assert find_adapter(Settings(adapter=str(made))) == made
    report = json.loads((made / "report.json").read_bytes())
    assert Calibration.read(made) == Calibration(**report["calibration"])
    assert not Calibration.read(made).examples
    assert report["losses"]["tuned"]["loss"] < report["losses"]["untuned"]["loss"]
    assert report["losses"]["untuned"]["chat"] == 0
    assert 0 < report["losses"]["tuned"]["chat"] < 0.1


def test_a_run_that_was_interrupted_goes_on_with_the_same_result(
    made: Path, tiny_model_folder: str, tmp_path: Path
) -> None:
    folder, steps = Path(tiny_model_folder), []

    def count(what: str, share: float) -> None:
        steps.append(what)

    report = json.loads((made / "report.json").read_bytes())
    every = report["history"][1]["step"]
    with pytest.raises(StoppedError):
        # After an evaluation, where it has saved.
        tune(folder, EXAMPLES, tmp_path, OPTIONS, interrupt_at(every + 1))
    assert {CHECKPOINT, CHATS} <= {file.name for file in tmp_path.iterdir()}
    tune(folder, EXAMPLES, tmp_path, OPTIONS, count)
    assert not any(what.startswith(f"Step {every} ") for what in steps)
    once, twice = load_file(made / WEIGHTS), load_file(tmp_path / WEIGHTS)
    assert once.keys() == twice.keys()
    assert all((once[name] == twice[name]).all() for name in once)


def test_a_checkpoint_of_another_tuning_is_not_gone_on_with(
    made: Path, tiny_model_folder: str, tmp_path: Path
) -> None:
    folder = Path(tiny_model_folder)
    with pytest.raises(StoppedError):
        tune(folder, EXAMPLES, tmp_path, replace(OPTIONS, seed=1), interrupt_at(8))
    tune(folder, EXAMPLES, tmp_path, OPTIONS, silent)
    once, again = load_file(made / WEIGHTS), load_file(tmp_path / WEIGHTS)
    assert all((once[name] == again[name]).all() for name in once)


def test_tuning_that_gets_worse_stops_early_with_the_best(
    tiny_model_folder: str, tmp_path: Path
) -> None:
    options = replace(OPTIONS, epochs=30, learning_rate=0.3, patience=1, keep=0.0)
    report = tune(Path(tiny_model_folder), EXAMPLES, tmp_path, options, silent)
    losses = [found["loss"] for found in report["history"]]
    assert losses[-1] > min(losses)
    assert len(losses) < 60
    assert report["losses"]["tuned"]["loss"] == min(losses)


def test_a_question_is_on_one_side() -> None:
    twice = [*EXAMPLES, *[replace(e, question=f" {e.question.upper()}") for e in EXAMPLES]]
    training, held_out = divide(twice, 0.3)
    names = [{" ".join(e.question.casefold().split()) for e in s} for s in (training, held_out)]
    assert len(training) + len(held_out) == len(twice)
    assert not names[0] & names[1]


def test_too_few_examples_are_refused(tiny_model_folder: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="1 examples are too few"):
        tune(Path(tiny_model_folder), EXAMPLES[:1], tmp_path, OPTIONS, silent)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        tune(tmp_path, EXAMPLES, tmp_path / "out", OPTIONS, silent)

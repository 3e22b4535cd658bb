"""Tuning learns, keeps ordinary answers, and resumes after an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from plato.errors import InvalidRequestError, ModelError
from plato.models.adapter import CONFIG, WEIGHTS, find_adapter
from plato.models.calibration import FILE, Calibration
from plato.settings import Settings
from plato.tuning.examples import Kind, read_examples
from plato.tuning.options import TuneOptions
from plato.tuning.tuner import ANSWERS, CHECKPOINT, REPORT, WORK, divide, tune

EXAMPLES = read_examples()[::60]
OPTIONS = TuneOptions(
    epochs=2,
    batch=4,
    rank=4,
    learning_rate=1e-3,
    kl_weight=1.0,
    reference_answers=4,
    reference_tokens=8,
    held_out=0.3,
    device="cpu",
)


class StoppedError(Exception):
    pass


def silent(what: str, share: float) -> None:
    pass


def stop_at(step: int) -> Callable[[str, float], None]:
    def progress(what: str, share: float) -> None:
        if what.startswith(f"Step {step} "):
            raise StoppedError

    return progress


def same_weights(one: Path, other: Path) -> bool:
    first, second = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert first.keys() == second.keys()
    return all((first[name] == second[name]).all() for name in first)


@pytest.fixture(scope="module")
def folder(tiny_model_folder: str) -> Path:
    return Path(tiny_model_folder)


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned")
    tune(folder, EXAMPLES, out, OPTIONS, silent, name="owner/tiny")
    return out


def test_the_result_is_an_adapter_with_calibration_and_report(made: Path) -> None:
    assert {file.name for file in made.iterdir()} == {CONFIG, WEIGHTS, FILE, REPORT}
    assert find_adapter(Settings(adapter=str(made))) == made
    config = json.loads((made / CONFIG).read_bytes())
    assert (config["base_model_name_or_path"], config["r"]) == ("owner/tiny", 4)
    report = json.loads((made / REPORT).read_bytes())
    assert Calibration.read(made) == Calibration(**report["calibration"])
    assert not Calibration.read(made).examples
    untuned, tuned = report["losses"]["untuned"], report["losses"]["tuned"]
    assert all(tuned[name] < untuned[name] for name in ("loss", "outline", "dependencies"))
    assert untuned["kl"] == 0


def test_the_penalty_keeps_ordinary_answers(made: Path, folder: Path, tmp_path: Path) -> None:
    def kl(out: Path) -> float:
        losses = json.loads((out / REPORT).read_bytes())["losses"]
        return float(losses["tuned"]["kl"])

    tune(folder, EXAMPLES, tmp_path, replace(OPTIONS, kl_weight=100), silent)
    assert kl(tmp_path) < 0.7 * kl(made)


def test_a_fraction_of_the_change_is_kept(made: Path, folder: Path, tmp_path: Path) -> None:
    tune(folder, EXAMPLES, tmp_path, replace(OPTIONS, kept=0.5), silent, name="owner/tiny")
    halved, whole = load_file(tmp_path / WEIGHTS), load_file(made / WEIGHTS)
    for name, weight in whole.items():
        fraction = 0.5 / OPTIONS.kept if "lora_B" in name else 1
        # Both are rounded to bfloat16.
        torch.testing.assert_close(halved[name], fraction * weight, rtol=2e-2, atol=1e-6)


def test_an_interrupted_run_resumes_with_the_same_result(
    made: Path, folder: Path, tmp_path: Path
) -> None:
    report = json.loads((made / REPORT).read_bytes())
    saved = report["history"][1]["step"]
    with pytest.raises(StoppedError):
        tune(folder, EXAMPLES, tmp_path, OPTIONS, stop_at(saved + 1))
    assert {file.name for file in (tmp_path / WORK).iterdir()} == {CHECKPOINT, ANSWERS}
    assert not (tmp_path / CONFIG).exists()
    steps: list[str] = []
    tune(folder, EXAMPLES, tmp_path, OPTIONS, lambda what, _: steps.append(what))
    assert not any(what.startswith(("Writing", f"Step {saved} ")) for what in steps)
    assert any(what.startswith(f"Step {saved + 1} ") for what in steps)
    assert same_weights(made, tmp_path)


@pytest.mark.parametrize("changed", ["options", "examples"])
def test_another_tuning_does_not_resume_it(changed: str, folder: Path, tmp_path: Path) -> None:
    options, examples = replace(OPTIONS, evaluations=20, patience=99), EXAMPLES
    with pytest.raises(StoppedError):
        tune(folder, examples, tmp_path, options, stop_at(3))
    if changed == "options":
        options = replace(options, learning_rate=2e-3)
    else:
        examples = [*EXAMPLES[1:], replace(EXAMPLES[0], question="Why not?")]
    with pytest.raises(InvalidRequestError, match="is from an interrupted run with other options"):
        tune(folder, examples, tmp_path, options, silent)


def test_a_damaged_checkpoint_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    (tmp_path / WORK / CHECKPOINT).write_bytes(b"PK")
    with pytest.raises(ModelError, match=rf"{CHECKPOINT} is damaged; remove it to start anew"):
        tune(folder, EXAMPLES, tmp_path, OPTIONS, silent)


def test_a_finished_adapter_is_not_overwritten(made: Path, folder: Path) -> None:
    with pytest.raises(InvalidRequestError, match="already contains an adapter"):
        tune(folder, EXAMPLES, made, OPTIONS, silent)


def test_tuning_that_gets_worse_stops_early_with_the_best_weights(
    folder: Path, tmp_path: Path
) -> None:
    options = replace(OPTIONS, epochs=30, learning_rate=0.3, patience=1, kl_weight=0.0)
    report = tune(folder, EXAMPLES, tmp_path, options, silent)
    losses = [found["loss"] for found in report["history"]]
    assert losses[-1] > min(losses)
    assert len(losses) < 60
    if min(losses) == losses[0]:
        # The untuned weights: LoRA's second matrices are still 0.
        weights = load_file(tmp_path / WEIGHTS)
        assert all(not weights[name].any() for name in weights if "lora_B" in name)


def test_it_starts_from_another_adapter(made: Path, folder: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, rank=8, epochs=1)
    report = tune(folder, EXAMPLES, tmp_path, options, silent, initial=made)
    before = json.loads((made / REPORT).read_bytes())
    # Stored weights are rounded to bfloat16.
    assert report["history"][0]["loss"] == pytest.approx(before["losses"]["tuned"]["loss"], 1e-2)
    assert report["options"]["rank"] == 4


def test_a_question_is_on_one_side() -> None:
    twice = [*EXAMPLES, *[replace(e, question=f" {e.question.upper()}") for e in EXAMPLES]]
    training, held_out = divide(twice, 0.3)
    names = [{" ".join(e.question.casefold().split()) for e in s} for s in (training, held_out)]
    assert len(training) + len(held_out) == len(twice)
    assert not names[0] & names[1]


@pytest.mark.parametrize(
    "kept", [lambda e: e.plan, lambda e: not e.plan, lambda e: e is EXAMPLES[0]]
)
def test_examples_of_one_kind_are_refused(
    kept: Callable[..., bool], folder: Path, tmp_path: Path
) -> None:
    examples = [example for example in EXAMPLES if kept(example)]
    with pytest.raises(InvalidRequestError, match="are too few, or too much alike"):
        tune(folder, examples, tmp_path, OPTIONS, silent)


def test_an_example_beyond_the_context_is_named(folder: Path, tmp_path: Path) -> None:
    texts = ("word " * 3000,) * len(EXAMPLES[0].plan)
    long = replace(EXAMPLES[0], question="Why so long? " * 20, texts=texts)
    assert texts
    assert long.kind is not Kind.FACT
    with pytest.raises(InvalidRequestError, match=r"'Why so long\? .* shorten or remove it"):
        tune(folder, [*EXAMPLES, long], tmp_path, OPTIONS, silent)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        tune(tmp_path, EXAMPLES, tmp_path / "out", OPTIONS, silent)

"""Tunes a model for planning: a LoRA adapter, trained on the product's own prompts.

It learns the decision to split, titles, dependencies and the texts of parts; a penalty can keep
other answers as they are. An interrupted run resumes from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from plato.engine import EngineError, fingerprint
from plato.engine.tokenizer_config import context_length
from plato.engine.torch.model import choose_device
from plato.errors import InvalidRequestError, ModelError, SettingsError
from plato.models.adapter import CONFIG, check_adapter
from plato.models.progress import Progress
from plato.prompting import ChatTemplate, Tokenizer
from plato.tuning.batching import all_samples, training_batches
from plato.tuning.calibrator import Calibrator
from plato.tuning.checkpoint import Checkpoint
from plato.tuning.examples import Example
from plato.tuning.options import TuneOptions
from plato.tuning.reference import draw_prompts, write_answers
from plato.tuning.samples import Sample, SampleBuilder
from plato.tuning.trainer import HeldOut, Trainer
from plato.tuning.tuned_model import as_stored, load_untuned, set_weights, with_adapter

WORK = ".tuning"
"""Subfolder with what an interrupted run needs to resume; removed at the end."""
CHECKPOINT = "checkpoint.pt"
ANSWERS = "answers.json"
REPORT = "report.json"


def tune(
    folder: Path,
    examples: Sequence[Example],
    out: Path,
    options: TuneOptions,
    progress: Progress,
    *,
    initial: Path | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Tune the model in `folder`, and write the adapter to `out`.

    Args:
        folder: the model.
        examples: what it learns.
        out: a folder without an adapter, or with an interrupted run of the same tuning.
        options: hyperparameters.
        progress: called after every step.
        initial: an adapter of this model to start from; its rank is kept.
        name: of the model, for the adapter's configuration.

    Returns:
        The report, which is also written to `out`.

    Raises:
        ModelError: the model or the initial adapter cannot be tuned, or training diverged.
        InvalidRequestError: the examples or `out` are not suitable.
    """
    training, held_out = divide(examples, options.held_out)
    for side in (training, held_out):
        if {bool(example.plan) for example in side if example.kind is not None} != {True, False}:
            raise InvalidRequestError(
                f"{len(examples)} examples are too few, or too much alike, to train on some and "
                "hold out others; both need questions that are split and questions that are not, "
                "with a `kind`: add some, or the ones that come with Plato",
                param="data",
            )
    if (out / CONFIG).exists():
        raise InvalidRequestError(
            f"{out} already contains an adapter; use another folder", param="out"
        )
    if initial is not None:
        check_adapter(initial)
    (out / WORK).mkdir(parents=True, exist_ok=True)
    tuner = _Tuner(folder, training, held_out, out, options, progress, initial, name)
    try:
        return tuner.run()
    except torch.OutOfMemoryError as error:
        raise ModelError("the device has too little memory; use a smaller batch") from error


def divide(examples: Sequence[Example], fraction: float) -> tuple[list[Example], list[Example]]:
    """(training, held out), by question: equal questions are always on the same side.

    What is there several times to be learned better is held out once.
    """
    sides: tuple[list[Example], list[Example]] = [], []
    for example in examples:
        words = " ".join(example.question.casefold().split())
        drawn = int.from_bytes(blake2b(words.encode(), digest_size=4).digest(), "big") / 2**32
        sides[drawn < fraction].append(example)
    return sides[0], list(dict.fromkeys(sides[1]))


class _Tuner:
    def __init__(
        self,
        folder: Path,
        training: Sequence[Example],
        held_out: Sequence[Example],
        out: Path,
        options: TuneOptions,
        progress: Progress,
        initial: Path | None,
        name: str | None,
    ) -> None:
        self._options = options
        self._out, self._work = out, out / WORK
        self._progress = progress
        self._initial = initial
        self._name = name or folder.name
        self._training, self._held_out = training, held_out
        try:
            self._device = choose_device(options.device)
        except (EngineError, SettingsError) as error:
            raise ModelError(str(error)) from error
        self._tokenizer = Tokenizer.load(str(folder))
        template = ChatTemplate(self._tokenizer)
        self._builder = SampleBuilder(self._tokenizer, template, context_length(str(folder)))
        clean = all_samples(self._builder, training)
        self._count = len(clean)
        self._tests = all_samples(self._builder, held_out)
        self._model_id = fingerprint(folder, "float32", initial)
        digest = blake2b(digest_size=8)
        for sample in (*clean, *self._tests):
            digest.update(repr(sample).encode())
        run_id = {
            "model": self._model_id,
            "samples": digest.hexdigest(),
            **asdict(options),
        }
        self._checkpoint = Checkpoint(self._work / CHECKPOINT, run_id)
        progress("Loading the model", 0.0)
        self._model = load_untuned(folder, self._device)

    def run(self) -> dict[str, Any]:
        """Write the reference answers, train, calibrate, report."""
        options = self._options
        count = options.reference_answers if options.kl_weight else 0
        asked = draw_prompts(self._builder, self._training, count, options.seed)
        tested = draw_prompts(self._builder, self._held_out, -(-count // 8), options.seed)
        answers = self._reference_answers([*asked, *tested])
        self._model = with_adapter(self._model, options, self._initial)
        held_out = HeldOut(self._tests, answers[len(asked) :])
        trainer = Trainer(self._model, options, held_out, self._checkpoint, self._progress)
        batches = training_batches(self._builder, self._training, options)
        trainer.train(batches, answers[: len(asked)], -(-self._count // options.batch))
        # Calibration and report are of what is stored.
        set_weights(self._model, as_stored(trainer.best_weights, options.kept))
        return self._finish(trainer)

    def _reference_answers(self, prompts: Sequence[tuple[int, ...]]) -> list[Sample]:
        return write_answers(
            self._model,
            prompts,
            self._tokenizer.end_tokens,
            self._work / ANSWERS,
            {"model": self._model_id, "seed": self._options.seed},
            max_tokens=self._options.reference_tokens,
            batch=512 if self._device.type == "cuda" else 32,
            progress=self._progress,
        )

    def _finish(self, trainer: Trainer) -> dict[str, Any]:
        """Calibrate on the held-out examples, and write adapter, calibration and report."""
        state, tuned = trainer.state, trainer.measure()
        self._progress("Calibrating", 1.0)
        calibrator = Calibrator(
            self._model, self._builder, self._tokenizer, self._device, self._options.batch
        )
        calibration = calibrator.calibrate(self._held_out)
        dependencies = calibrator.evaluate(self._held_out, calibration)
        made = self._work / "adapter"
        config = self._model.peft_config["default"]
        config.base_model_name_or_path = self._name
        self._model.to(torch.bfloat16).save_pretrained(made)
        calibration.write(made)
        report = {
            "model": self._name,
            "options": asdict(self._options) | {"rank": config.r},
            "initial": None if self._initial is None else self._initial.name,
            "examples": {"training": len(self._training), "held_out": len(self._held_out)},
            "samples": self._count,
            "device": str(self._device),
            "torch": torch.__version__,
            "seconds": round(state.seconds, 1),
            "calibration": asdict(calibration),
            "dependencies": dependencies,
            "losses": {"untuned": state.history[0], "tuned": tuned},
            "history": state.history,
        }
        (made / REPORT).write_text(json.dumps(report, indent=2) + "\n")
        (made / "README.md").unlink(missing_ok=True)  # PEFT's empty form of a model card.
        # The configuration last: without it, there is no adapter.
        for file in sorted(made.iterdir(), key=lambda file: file.name == CONFIG):
            os.replace(file, self._out / file.name)
        shutil.rmtree(self._work)
        return report

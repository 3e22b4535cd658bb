"""Tunes a model for planning: a LoRA adapter, trained on the product's own prompts.

It learns the decision to split, titles, dependencies and the texts of parts; a penalty keeps other
answers as they are. An interrupted run resumes from its last checkpoint.
"""

from __future__ import annotations

import json
import logging
import math
import os
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import torch

from plato.engine import EngineError, fingerprint
from plato.engine.tokenizer_config import context_length
from plato.engine.torch.model import choose_device
from plato.errors import InvalidRequestError, ModelError, SettingsError
from plato.models.adapter import CONFIG, check_adapter
from plato.models.progress import Progress
from plato.prompting import ChatTemplate, Tokenizer
from plato.tuning.calibrator import Calibrator
from plato.tuning.checkpoint import Checkpoint
from plato.tuning.examples import Example
from plato.tuning.losses import Batch
from plato.tuning.options import TuneOptions
from plato.tuning.reference import write_answers
from plato.tuning.samples import Sample, SampleBuilder
from plato.tuning.tuned_model import (
    as_stored,
    load_untuned,
    set_weights,
    trained_weights,
    with_adapter,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

WORK = ".tuning"
"""Subfolder with what an interrupted run needs to resume; removed at the end."""
CHECKPOINT = "checkpoint.pt"
ANSWERS = "answers.json"
REPORT = "report.json"
CHECKPOINT_S = 60.0
WARM_UP = 0.05
"""Fraction of the steps."""
SAMPLES_PER_ANSWER = 5
"""In every step one reference answer for so many samples."""
PASS_TOKENS = 4096
"""Per pass forward and backward, padding included: bounds the memory of a step."""
BUCKET = 16
"""Batches; samples of similar length are batched within a bucket."""
MAX_GRADIENT_NORM = 1.0


@dataclass
class State:
    """Progress of the training loop."""

    step: int = 0
    best: float | None = None
    """Lowest held-out loss."""
    since_best: int = 0
    """Evaluations since then."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Losses of every evaluation."""
    stopped: bool = False
    seconds: float = 0.0
    """Duration of the training loop."""


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
        clean = _samples(self._builder, training)
        self._count = len(clean)
        self._tests = _samples(self._builder, held_out)
        self._model_id = fingerprint(folder, "float32", initial)
        digest = blake2b(digest_size=8)
        for sample in (*clean, *self._tests):
            digest.update(repr(sample).encode())
        run_id = {
            "model": self._model_id,
            "samples": digest.hexdigest(),
            "device": self._device.type,
            **asdict(options),
        }
        self._checkpoint = Checkpoint(self._work / CHECKPOINT, run_id)
        progress("Loading the model", 0.0)
        self._model = load_untuned(folder, self._device)

    def run(self) -> dict[str, Any]:
        """Write the reference answers, train, calibrate, report."""
        count = self._options.reference_answers if self._options.kl_weight else 0
        asked = self._ordinary(self._training, count)
        answers = self._reference_answers([*asked, *self._ordinary(self._held_out, -(-count // 8))])
        references, held_out = answers[: len(asked)], answers[len(asked) :]
        self._model = with_adapter(self._model, self._options, self._initial)
        self._best = trained_weights(self._model)
        weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self._options.learning_rate, weight_decay=0.01)
        state = self._resume(optimizer)
        if not state.history:
            self._evaluate(state, held_out)
        self._train(state, optimizer, references, held_out)
        # Calibration and report are of what is stored.
        set_weights(self._model, as_stored(self._best, self._options.kept))
        return self._finish(state, self._measure(held_out))

    def _ordinary(self, examples: Sequence[Example], count: int) -> list[tuple[int, ...]]:
        """Up to `count` prompts that the model shall continue as before."""
        prompts = sorted({p for example in examples for p in self._builder.ordinary(example)})
        return random.Random(self._options.seed).sample(prompts, min(count, len(prompts)))

    def _reference_answers(self, prompts: Sequence[tuple[int, ...]]) -> list[Sample]:
        return write_answers(
            self._model,
            prompts,
            self._tokenizer.end_tokens,
            self._work / ANSWERS,
            {"model": self._model_id, "seed": self._options.seed},
            max_tokens=self._options.reference_tokens,
            batch=self._options.batch * (16 if self._device.type == "cuda" else 2),
            progress=self._progress,
        )

    def _train(
        self,
        state: State,
        optimizer: torch.optim.Optimizer,
        references: Sequence[Sample],
        held_out: Sequence[Sample],
    ) -> None:
        options = self._options
        steps = -(-self._count // options.batch)
        total = steps * options.epochs
        interval = max(1, steps // options.evaluations)
        warm_up = max(1, int(WARM_UP * total))
        began = time.monotonic() - state.seconds
        saved = time.monotonic()
        for step, samples in enumerate(self._batches()):
            if state.stopped:
                break
            if step < state.step:
                continue
            rate = min((step + 1) / warm_up, (total - step) / max(1, total - warm_up))
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * rate
            self._step(step, samples, references, optimizer)
            state.step, state.seconds = step + 1, time.monotonic() - began
            if state.step % interval == 0 or state.step == total:
                self._evaluate(state, held_out)
                saved = 0.0
            if time.monotonic() - saved > CHECKPOINT_S:
                self._save(state, optimizer)
                saved = time.monotonic()
            self._progress(f"Step {state.step} of {total}", state.step / total)

    def _step(
        self,
        step: int,
        samples: Sequence[Sample],
        references: Sequence[Sample],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        for some in _passes(samples):
            batch = Batch.of(some, self._device)
            loss = batch.losses(batch.logits(self._model)).sum() / len(samples)
            loss.backward()
        if references:
            count = min(len(references), max(1, len(samples) // SAMPLES_PER_ANSWER))
            drawn = random.Random(f"{self._options.seed}-{step}").sample(references, count)
            (self._options.kl_weight * self._divergence(drawn)).backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), MAX_GRADIENT_NORM)
        if not norm.isfinite():
            self._checkpoint.remove()
            raise ModelError(
                f"training diverged at step {step + 1}; start again with a lower learning rate"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _divergence(self, answers: Sequence[Sample]) -> torch.Tensor:
        batch = Batch.of(answers, self._device)
        with torch.no_grad(), self._model.disable_adapter():
            untuned = batch.logits(self._model)
        return batch.divergence(batch.logits(self._model), untuned)

    def _evaluate(self, state: State, answers: Sequence[Sample]) -> None:
        """Record the held-out loss, and keep the weights if it is the lowest so far."""
        found = self._measure(answers)
        loss = found["loss"]
        if not math.isfinite(loss):
            raise ModelError("training diverged; start again with a lower learning rate")
        state.history.append({"step": state.step, **found})
        logger.info("step %d: held-out loss %.4f", state.step, loss)
        if state.best is None or loss < state.best:
            state.best, state.since_best = loss, 0
            self._best = trained_weights(self._model)
        else:
            state.since_best += 1
            state.stopped = state.since_best >= self._options.patience

    @torch.no_grad()
    def _measure(self, answers: Sequence[Sample]) -> dict[str, float]:
        """Held-out loss, divergence on `answers`, and the mean loss of every skill."""
        losses: dict[str, list[float]] = defaultdict(list)
        for samples in _chunks(
            sorted(self._tests, key=lambda sample: len(sample.tokens)), self._options.batch
        ):
            batch = Batch.of(samples, self._device)
            found = batch.losses(batch.logits(self._model)).tolist()
            for sample, loss in zip(samples, found, strict=True):
                losses[sample.skill.value].append(loss)
        divergences = [
            float(self._divergence(some)) for some in _chunks(answers, self._options.batch)
        ]
        kl = fmean(divergences) if divergences else 0.0
        # Weighted as in training.
        loss = fmean(loss for each in losses.values() for loss in each)
        means = {skill: fmean(each) for skill, each in sorted(losses.items())}
        return {"loss": loss + self._options.kl_weight * kl, "kl": kl, **means}

    def _batches(self) -> Iterator[list[Sample]]:
        """All samples in every epoch, in an order that depends on seed and epoch alone."""
        size = self._options.batch
        for epoch in range(self._options.epochs):
            order = random.Random(f"{self._options.seed}/{epoch}")
            samples = _samples(self._builder, self._training, order)
            order.shuffle(samples)
            batches = [
                batch
                for bucket in _chunks(samples, size * BUCKET)
                for batch in _chunks(sorted(bucket, key=lambda s: len(s.tokens)), size)
            ]
            order.shuffle(batches)
            yield from map(list, batches)

    def _finish(self, state: State, tuned: dict[str, float]) -> dict[str, Any]:
        """Calibrate on the held-out examples, and write adapter, calibration and report."""
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

    def _resume(self, optimizer: torch.optim.Optimizer) -> State:
        """The state of an interrupted run."""
        kept = self._checkpoint.read()
        if kept is None:
            return State()
        set_weights(self._model, kept["weights"])
        self._best = kept["best"]
        optimizer.load_state_dict(kept["optimizer"])
        logger.info("resuming at step %d", kept["state"]["step"])
        return State(**kept["state"])

    def _save(self, state: State, optimizer: torch.optim.Optimizer) -> None:
        self._checkpoint.write(
            state=asdict(state),
            weights=trained_weights(self._model),
            best=self._best,
            optimizer=optimizer.state_dict(),
        )


def _samples(
    builder: SampleBuilder, examples: Sequence[Example], noise: random.Random | None = None
) -> list[Sample]:
    return [sample for example in examples for sample in builder.samples(example, noise)]


def _passes(samples: Sequence[Sample]) -> Iterator[list[Sample]]:
    """Samples of a batch that are computed at the same time."""
    some: list[Sample] = []
    longest = 0
    for sample in samples:
        longest = max(longest, len(sample.tokens))
        if some and longest * (len(some) + 1) > PASS_TOKENS:
            yield some
            some, longest = [], len(sample.tokens)
        some.append(sample)
    yield some


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

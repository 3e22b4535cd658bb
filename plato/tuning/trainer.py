"""The training loop: steps, evaluations, checkpoints, early stopping."""

from __future__ import annotations

import logging
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

import torch

from plato.errors import ModelError
from plato.models.progress import Progress
from plato.tuning.batching import by_length, chunks, passes
from plato.tuning.checkpoint import Checkpoint
from plato.tuning.losses import Batch
from plato.tuning.options import TuneOptions
from plato.tuning.samples import Sample
from plato.tuning.tuned_model import set_weights, trained_weights

logger = logging.getLogger(__name__)

CHECKPOINT_S = 60.0
WARM_UP = 0.05
"""Fraction of the steps."""
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
    """Duration of the steps so far."""


@dataclass(frozen=True)
class HeldOut:
    """What is not trained on."""

    samples: Sequence[Sample]
    answers: Sequence[Sample]
    """The untuned model's."""


class Trainer:
    """Trains the adapter of one model; continues from its checkpoint, if there is one."""

    def __init__(
        self,
        model: Any,
        options: TuneOptions,
        held_out: HeldOut,
        checkpoint: Checkpoint,
        progress: Progress,
    ) -> None:
        """Raises `ModelError` or `InvalidRequestError` if the checkpoint cannot be used."""
        self._model = model
        self._options = options
        self._held_out = held_out
        self._checkpoint = checkpoint
        self._progress = progress
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._optimizer = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=0.01)
        self.best_weights = trained_weights(model)
        self.state = State()
        kept = checkpoint.read()
        if kept is not None:
            set_weights(model, kept["weights"])
            self.best_weights = kept["best"]
            self._optimizer.load_state_dict(kept["optimizer"])
            self.state = State(**kept["state"])
            logger.info("resuming at step %d", self.state.step)

    def train(
        self, batches: Iterable[Sequence[Sample]], references: Sequence[Sample], steps: int
    ) -> None:
        """Take the steps that are left.

        Args:
            batches: all of them, those already learned too.
            references: the untuned model's answers, some of which are seen in every step.
            steps: of one epoch.

        Raises `ModelError` if training diverges.
        """
        state, options = self.state, self._options
        total = steps * options.epochs
        interval = max(1, steps // options.evaluations)
        warm_up = max(1, int(WARM_UP * total))
        if not state.history:
            self._evaluate()
        saved = time.monotonic()
        began = saved - state.seconds
        for step, samples in enumerate(batches):
            if state.stopped:
                break
            if step < state.step:
                continue
            rate = min((step + 1) / warm_up, (total - step) / max(1, total - warm_up))
            for group in self._optimizer.param_groups:
                group["lr"] = options.learning_rate * rate
            self._step(samples, references)
            state.step, state.seconds = step + 1, time.monotonic() - began
            evaluated = state.step % interval == 0 or state.step == total
            if evaluated:
                self._evaluate()
            if evaluated or time.monotonic() - saved > CHECKPOINT_S:
                self._save()
                saved = time.monotonic()
            self._progress(f"Step {state.step} of {total}", state.step / total)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Held-out loss, divergence on held-out answers, and the mean loss of every skill."""
        device, options = self._model.device, self._options
        losses: dict[str, list[float]] = defaultdict(list)
        for samples in passes(by_length(self._held_out.samples)):
            batch = Batch.of(samples, device)
            found = batch.losses(batch.logits(self._model)).tolist()
            for sample, loss in zip(samples, found, strict=True):
                losses[sample.skill.value].append(loss)
        answers = chunks(self._held_out.answers, options.batch)
        divergences = [float(self._divergence(some)) for some in answers]
        kl = fmean(divergences) if divergences else 0.0
        # Weighted as in training.
        loss = fmean(loss for each in losses.values() for loss in each)
        means = {skill: fmean(each) for skill, each in sorted(losses.items())}
        return {"loss": loss + options.kl_weight * kl, "kl": kl, **means}

    def _step(self, samples: Sequence[Sample], references: Sequence[Sample]) -> None:
        for some in passes(samples):
            batch = Batch.of(some, self._model.device)
            _backward(batch.losses(batch.logits(self._model)).sum() / len(samples))
        if references:
            count = min(len(references), self._options.references_per_step)
            draw = random.Random(f"{self._options.seed}-{self.state.step}")
            for answers in passes(by_length(draw.sample(references, count))):
                weight = self._options.kl_weight * len(answers) / count
                _backward(weight * self._divergence(answers))
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), MAX_GRADIENT_NORM)
        if not norm.isfinite():
            self._checkpoint.remove()
            raise ModelError(
                f"training diverged at step {self.state.step + 1}; "
                "start again with a lower learning rate"
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _divergence(self, answers: Sequence[Sample]) -> torch.Tensor:
        batch = Batch.of(answers, self._model.device)
        with torch.no_grad(), self._model.disable_adapter():
            untuned = batch.logits(self._model)
        return batch.divergence(batch.logits(self._model), untuned)

    def _evaluate(self) -> None:
        """Record the held-out loss, and keep the weights if it is the lowest so far."""
        state, found = self.state, self.measure()
        loss = found["loss"]
        if not math.isfinite(loss):
            raise ModelError("training diverged; start again with a lower learning rate")
        state.history.append({"step": state.step, **found})
        logger.info("step %d: held-out loss %.4f", state.step, loss)
        if state.best is None or loss < state.best:
            state.best, state.since_best = loss, 0
            self.best_weights = trained_weights(self._model)
        else:
            state.since_best += 1
            state.stopped = state.since_best >= self._options.patience

    def _save(self) -> None:
        self._checkpoint.write(
            state=asdict(self.state),
            weights=trained_weights(self._model),
            best=self.best_weights,
            optimizer=self._optimizer.state_dict(),
        )


def _backward(loss: torch.Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]

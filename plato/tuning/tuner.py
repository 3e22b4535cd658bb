"""Tunes a model for planning: LoRA adapters on the product's own prompts.

What is learned: the decision to split, titles, dependencies, and parts that end and build on each
other. A penalty keeps the model's other answers as they are. A run that was interrupted goes on at
its last checkpoint, with the same result.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from plato.engine.tokenizer_config import context_length
from plato.errors import InvalidRequestError, ModelError
from plato.models.progress import Progress
from plato.planning.decision import DependencyDecision
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import PlanGraph
from plato.tuning.calibrate import calibrate, predict, scorer
from plato.tuning.examples import Example
from plato.tuning.losses import Batch, divergence, losses
from plato.tuning.measures import measure
from plato.tuning.options import TuneOptions
from plato.tuning.samples import Sample, Skill, Teacher

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
"""In the folder of the adapter, until it is complete."""
CHATS = "chats.json"
REPORT = "report.json"
CHECKPOINT_S = 60.0
WARM_UP_SHARE = 0.05
BUCKET = 16
"""Batches of similar length are made within so many."""
CLIP = 1.0
"""Largest norm of a step's gradient."""


@dataclass
class State:
    """How far tuning is."""

    step: int = 0
    best: float | None = None
    since_best: int = 0
    """Evaluations."""
    history: list[dict[str, Any]] = field(default_factory=list)
    over: bool = False


def tune(
    folder: Path,
    examples: Sequence[Example],
    out: Path,
    options: TuneOptions,
    progress: Progress,
) -> dict[str, Any]:
    """Tune the model in `folder`, and write the adapter to `out`; returns the report.

    Raises `ModelError` and `InvalidRequestError`.
    """
    training, held_out = divide(examples, options.held_out)
    if not training or not held_out:
        raise InvalidRequestError(
            f"{len(examples)} examples are too few to hold some out; write more", param="data"
        )
    return _Tuner(folder, training, held_out, out, options, progress).run()


def divide(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """(training, held out), by question: the same question is always on the same side."""
    sides: tuple[list[Example], list[Example]] = [], []
    for example in examples:
        name = " ".join(example.question.casefold().split())
        drawn = int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big") / 2**32
        sides[drawn < share].append(example)
    return sides


class _Tuner:
    def __init__(
        self,
        folder: Path,
        training: Sequence[Example],
        held_out: Sequence[Example],
        out: Path,
        options: TuneOptions,
        progress: Progress,
    ) -> None:
        self._options = options
        self._out = out
        self._progress = progress
        self._held_out = held_out
        self._tokenizer = Tokenizer.load(str(folder))
        template = ChatTemplate(self._tokenizer)
        self._teacher = Teacher(self._tokenizer, template, context_length(str(folder)))
        self._training = training
        self._count = len(_samples(self._teacher, training))
        self._tests = _samples(self._teacher, held_out)
        self._device = _device(options.device)
        out.mkdir(parents=True, exist_ok=True)
        self._config = {
            "model": folder.name,
            "options": asdict(options),
            "examples": len(training),
            "samples": self._count,
        }
        torch.manual_seed(options.seed)
        progress("Loading the model", 0.0)
        self._model = _load(folder, self._device)
        self._questions = [example.question for example in training if example.kind is not None]

    def run(self) -> dict[str, Any]:
        """Write chats, learn, calibrate, report."""
        began = time.monotonic()
        chats = self._chats()
        self._model = _with_lora(self._model, self._options)
        weights = [weight for weight in self._model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=self._options.learning_rate, weight_decay=0.01)
        state = self._resume(optimizer)
        if not state.history:
            self._evaluate(state, chats)
        self._learn(state, optimizer, chats)
        self._set_weights(self._checkpoint()["best"])
        return self._finish(state, time.monotonic() - began)

    def _learn(self, state: State, optimizer: torch.optim.Optimizer, chats: list[Sample]) -> None:
        options = self._options
        steps_of_epoch = -(-self._count // options.batch)
        total = steps_of_epoch * options.epochs
        every = max(1, steps_of_epoch // options.evaluations)
        warm_up = max(1, int(WARM_UP_SHARE * total))
        saved = time.monotonic()
        self._model.train()
        for step, batch in enumerate(self._batches(options.epochs)):
            if step < state.step:
                continue
            if state.over:
                break
            rate = min((step + 1) / warm_up, (total - step) / max(1, total - warm_up))
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * rate
            kept = random.Random(f"{options.seed}-{step}").sample(
                chats, min(len(chats), max(1, options.batch // 4))
            )
            loss = self._step(batch, kept)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), CLIP)
            if not norm.isfinite():
                raise ModelError(
                    f"tuning diverged at step {step + 1}; lower the learning rate and go on"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.step = step + 1
            if state.step % every == 0 or state.step == total:
                self._evaluate(state, chats)
                self._save(state, optimizer)
                saved = time.monotonic()
            elif time.monotonic() - saved > CHECKPOINT_S:
                self._save(state, optimizer)
                saved = time.monotonic()
            self._progress(f"Step {state.step} of {total}", state.step / total)
        self._save(state, optimizer)

    def _step(self, samples: Sequence[Sample], chats: Sequence[Sample]) -> torch.Tensor:
        batch = Batch.of(samples, self._device)
        loss = losses(batch, batch.logits(self._model)).mean()
        if not self._options.keep or not chats:
            return loss
        return loss + self._options.keep * self._divergence(chats)

    def _divergence(self, chats: Sequence[Sample]) -> torch.Tensor:
        ordinary = Batch.of(chats, self._device)
        with torch.no_grad(), self._model.disable_adapter():
            untuned = ordinary.logits(self._model)
        return divergence(ordinary, ordinary.logits(self._model), untuned)

    @torch.no_grad()
    def _evaluate(self, state: State, chats: Sequence[Sample]) -> None:
        """Held-out loss by skill, and whether it is the best so far."""
        self._model.eval()
        found: dict[str, list[float]] = defaultdict(list)
        size = self._options.batch
        for samples in _chunks(sorted(self._tests, key=lambda s: len(s.tokens)), size):
            batch = Batch.of(samples, self._device)
            of_samples = losses(batch, batch.logits(self._model)).tolist()
            for sample, loss in zip(samples, of_samples, strict=True):
                found[sample.skill].append(loss)
        if chats:
            found[Skill.CHAT] = [
                float(self._divergence(some)) for some in _chunks(chats[: 4 * size], size)
            ]
        means = {str(skill): fmean(values) for skill, values in sorted(found.items())}
        total = sum(means.values()) + (self._options.keep - 1) * means.get(Skill.CHAT.value, 0.0)
        state.history.append({"step": state.step, "loss": total, **means})
        if state.best is None or total < state.best:
            state.best, state.since_best = total, 0
            self._best = self._weights()
        else:
            state.since_best += 1
            state.over = state.since_best >= self._options.patience
        logger.info("step %d: held-out loss %.4f %s", state.step, total, means)
        self._model.train()

    def _batches(self, epochs: int) -> Iterator[list[Sample]]:
        """All samples in every epoch, in an order that depends on seed and epoch alone."""
        size = self._options.batch
        for epoch in range(epochs):
            order = random.Random(f"{self._options.seed}/{epoch}")
            shuffled = _samples(self._teacher, self._training, order)
            order.shuffle(shuffled)
            batches = [
                batch
                for bucket in _chunks(shuffled, size * BUCKET)
                for batch in _chunks(sorted(bucket, key=lambda s: len(s.tokens)), size)
            ]
            order.shuffle(batches)
            yield from map(list, batches)

    def _chats(self) -> list[Sample]:
        """Ordinary answers of the untuned model; from an interrupted run, if there are."""
        options, file = self._options, self._out / CHATS
        asked = self._questions
        random.Random(options.seed).shuffle(asked)
        asked = asked[: options.chats] if options.keep else []
        if file.is_file():
            kept = json.loads(file.read_bytes())
            if [question for question, _ in kept] == asked:
                return [self._teacher.chat(question, answer) for question, answer in kept]
        size = options.batch * (8 if self._device.type == "cuda" else 2)
        answers: list[list[int]] = []
        for some in _chunks(asked, size):
            answers += self._answers([self._teacher.chat_prompt(question) for question in some])
            self._progress("Writing ordinary answers", 0.0)
        kept = [[q, a] for q, a in zip(asked, answers, strict=True) if a]
        file.write_text(json.dumps(kept))
        return [self._teacher.chat(question, answer) for question, answer in kept]

    @torch.inference_mode()
    def _answers(self, prompts: Sequence[tuple[int, ...]]) -> list[list[int]]:
        """Sampled continuations of prompts."""
        length = max(map(len, prompts))
        missing = [length - len(prompt) for prompt in prompts]
        ids = [(0,) * gap + prompt for gap, prompt in zip(missing, prompts, strict=True)]
        mask = [(0,) * gap + (1,) * (length - gap) for gap in missing]
        ends = self._tokenizer.end_tokens
        self._model.eval()
        out = self._model.generate(
            input_ids=torch.tensor(ids, device=self._device),
            attention_mask=torch.tensor(mask, device=self._device),
            max_new_tokens=self._options.chat_tokens,
            do_sample=True,
            temperature=0.8,
            top_p=0.95,
            pad_token_id=0,
            eos_token_id=sorted(ends),
        )
        found = []
        for row in out[:, length:].tolist():
            end = next((n for n, token in enumerate(row) if token in ends), len(row) - 1)
            found.append(row[: end + 1])
        return found

    def _finish(self, state: State, seconds: float) -> dict[str, Any]:
        """Calibrate on the held-out examples, and write adapter, calibration and report."""
        self._progress("Calibrating", 1.0)
        self._model.eval()
        score = scorer(self._model, self._device, self._options.batch)
        read = calibrate(self._held_out, self._teacher, self._tokenizer, score)
        plans = [(e.question, e.plan) for e in self._held_out if len(e.plan) > 1]
        graphs = predict(plans, self._teacher, DependencyDecision(self._tokenizer, read), score)
        true = [PlanGraph(plan) for _, plan in plans]
        self._model.to(torch.bfloat16).save_pretrained(self._out)
        (self._out / "README.md").unlink(missing_ok=True)  # A form of PEFT's that nobody filled in.
        read.write(self._out)
        report = {
            **self._config,
            "held_out": len(self._held_out),
            "seconds": round(seconds, 1),
            "device": str(self._device),
            "torch": torch.__version__,
            "calibration": asdict(read),
            "dependencies": measure(list(zip(true, graphs, strict=True))),
            "losses": {
                "untuned": state.history[0],
                "tuned": min(state.history, key=lambda found: found["loss"]),
            },
            "history": state.history,
        }
        (self._out / REPORT).write_text(json.dumps(report, indent=2) + "\n")
        for name in (CHECKPOINT, CHATS):
            (self._out / name).unlink(missing_ok=True)
        return report

    def _resume(self, optimizer: torch.optim.Optimizer) -> State:
        """Where an interrupted run of the same configuration was."""
        if not (self._out / CHECKPOINT).is_file():
            return State()
        kept = self._checkpoint()
        if kept["config"] != self._config:
            logger.warning("the checkpoint in %s is of another tuning; starting anew", self._out)
            return State()
        self._set_weights(kept["weights"])
        optimizer.load_state_dict(kept["optimizer"])
        self._best = kept["best"]
        torch.set_rng_state(kept["random"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(kept["random_cuda"])
        logger.info("going on at step %d", kept["state"]["step"])
        return State(**kept["state"])

    def _checkpoint(self) -> dict[str, Any]:
        found: dict[str, Any] = torch.load(self._out / CHECKPOINT, weights_only=True)
        return found

    def _save(self, state: State, optimizer: torch.optim.Optimizer) -> None:
        cuda = self._device.type == "cuda"
        kept = {
            "config": self._config,
            "state": asdict(state),
            "weights": self._weights(),
            "best": self._best,
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if cuda else None,
        }
        partial = self._out / f"{CHECKPOINT}.partial"
        torch.save(kept, partial)
        os.replace(partial, self._out / CHECKPOINT)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {
            name: weight.detach().cpu().clone()
            for name, weight in self._model.named_parameters()
            if weight.requires_grad
        }

    @torch.no_grad()
    def _set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        own = dict(self._model.named_parameters())
        for name, weight in weights.items():
            own[name].copy_(weight)


def _samples(
    teacher: Teacher, examples: Sequence[Example], noise: random.Random | None = None
) -> list[Sample]:
    return [sample for example in examples for sample in teacher.samples(example, noise)]


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _load(folder: Path, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    except Exception as error:
        raise ModelError(f"the model in {folder} cannot be loaded: {error}") from error
    return model.to(device)


def _with_lora(model: Any, options: TuneOptions) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(options.seed)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=2 * options.rank,
        lora_dropout=options.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)

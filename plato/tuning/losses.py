"""Batches of samples, and their losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from plato.tuning.samples import Sample


@dataclass(frozen=True)
class Texts:
    """The tokens of all spans of a batch, as columns of equal length."""

    rows: torch.Tensor
    positions: torch.Tensor
    """Of the preceding tokens."""
    targets: torch.Tensor
    weights: torch.Tensor
    """Those of one span sum to 1."""

    @classmethod
    def of(cls, samples: Sequence[Sample], device: torch.device) -> Texts:
        """On `device`."""
        entries = [
            (row, position - 1, sample.tokens[position], 1 / len(span))
            for row, sample in enumerate(samples)
            for span in sample.spans
            for position in span
        ]
        rows, positions, targets, weights = zip(*entries, strict=True) if entries else ((),) * 4
        return cls(
            torch.tensor(rows, device=device, dtype=torch.long),
            torch.tensor(positions, device=device, dtype=torch.long),
            torch.tensor(targets, device=device, dtype=torch.long),
            torch.tensor(weights, device=device, dtype=torch.float32),
        )


@dataclass(frozen=True)
class Choices:
    """All choices of a batch; candidates are padded to the largest number."""

    rows: torch.Tensor
    positions: torch.Tensor
    candidates: torch.Tensor
    """[choices, candidates], as for the next two."""
    targets: torch.Tensor
    padding: torch.Tensor
    """True where there is no candidate."""

    @classmethod
    def of(cls, samples: Sequence[Sample], device: torch.device) -> Choices:
        """On `device`."""
        entries = [(row, each) for row, sample in enumerate(samples) for each in sample.choices]
        width = max((len(choice.candidates) for _, choice in entries), default=0)
        candidates = torch.zeros(len(entries), width, dtype=torch.long)
        targets = torch.zeros(len(entries), width)
        padding = torch.ones(len(entries), width, dtype=torch.bool)
        for index, (_, choice) in enumerate(entries):
            count = len(choice.candidates)
            candidates[index, :count] = torch.tensor(choice.candidates)
            targets[index, :count] = torch.tensor(choice.targets)
            padding[index, :count] = False
        return cls(
            torch.tensor([row for row, _ in entries], device=device, dtype=torch.long),
            torch.tensor([c.position for _, c in entries], device=device, dtype=torch.long),
            candidates.to(device),
            targets.to(device),
            padding.to(device),
        )


@dataclass(frozen=True)
class Batch:
    """Samples side by side, aligned at their first token.

    The padding behind the shorter ones needs no mask, because attention is causal.
    """

    size: int
    ids: torch.Tensor
    """[samples, length]."""
    texts: Texts
    choices: Choices

    @classmethod
    def of(cls, samples: Sequence[Sample], device: torch.device) -> Batch:
        """On `device`."""
        length = max(len(sample.tokens) for sample in samples)
        rows = [sample.tokens + (0,) * (length - len(sample.tokens)) for sample in samples]
        ids = torch.tensor(rows, device=device)
        return cls(len(samples), ids, Texts.of(samples, device), Choices.of(samples, device))

    def logits(self, model: Any) -> torch.Tensor:
        """Logits [positions, vocabulary]: those of `texts`, then those of `choices`.

        Others are not computed: the vocabulary of a small model costs a fifth of a step, and the
        logits of whole prompts gigabytes.
        """
        rows = torch.cat((self.texts.rows, self.choices.rows))
        positions = torch.cat((self.texts.positions, self.choices.positions))

        def select(head: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            hidden, *others = inputs
            return (hidden[rows, positions][None], *others)

        hook = model.get_output_embeddings().register_forward_pre_hook(select)
        kind = self.ids.device.type
        try:
            with torch.autocast(kind, torch.bfloat16, enabled=_has_fast_bfloat16(kind)):
                logits: torch.Tensor = model(input_ids=self.ids, use_cache=False).logits
        finally:
            hook.remove()
        return logits[0].float()

    def losses(self, logits: torch.Tensor) -> torch.Tensor:
        """Cross entropy of each sample in nats: [samples].

        Added up over the spans of a sample, of each the mean over its tokens, and over its choices,
        of each among its candidates: a decision counts as much as a text.
        """
        texts, choices = self.texts, self.choices
        found = logits.new_zeros(self.size)
        written, chosen = logits[: len(texts.rows)], logits[len(texts.rows) :]
        if len(written):
            each = functional.cross_entropy(written, texts.targets, reduction="none")
            found = found.index_add(0, texts.rows, each * texts.weights)
        if len(chosen):
            scores = chosen.gather(1, choices.candidates).masked_fill(choices.padding, -torch.inf)
            log_probs = functional.log_softmax(scores, -1).masked_fill(choices.padding, 0.0)
            each = -(choices.targets * log_probs).sum(-1)
            found = found.index_add(0, choices.rows, each)
        return found

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Log probabilities of the candidates, among all tokens: [choices, candidates]."""
        chosen = logits[len(self.texts.rows) :]
        return functional.log_softmax(chosen, -1).gather(1, self.choices.candidates)

    def divergence(self, logits: torch.Tensor, untuned: torch.Tensor) -> torch.Tensor:
        """Kullback-Leibler divergence of the texts from the untuned model, in nats per token."""
        log_probs, reference = (functional.log_softmax(each, -1) for each in (logits, untuned))
        each = functional.kl_div(log_probs, reference, reduction="none", log_target=True).sum(-1)
        return (each * self.texts.weights).sum() / self.texts.weights.sum()


def _has_fast_bfloat16(device: str) -> bool:
    """Whether bfloat16 is faster than float32: on GPUs, and on CPUs with AMX."""
    if device == "cuda":
        return True
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16"))

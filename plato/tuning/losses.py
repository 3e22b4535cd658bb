"""Batches of samples, and what a model is to learn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from plato.tuning.samples import Sample


@dataclass(frozen=True)
class Batch:
    """Samples side by side, aligned at their first token.

    What follows the shorter ones needs no mask: attention looks back only.
    """

    samples: tuple[Sample, ...]
    ids: torch.Tensor
    """[samples, length], padded on the right."""
    first: int
    """The logits after this token and after all later ones are used."""

    @classmethod
    def of(cls, samples: Sequence[Sample], device: torch.device) -> Batch:
        """A batch on `device`."""
        length = max(len(sample.tokens) for sample in samples)
        rows = [sample.tokens + (0,) * (length - len(sample.tokens)) for sample in samples]
        first = min(sample.first_place for sample in samples)
        return cls(tuple(samples), torch.tensor(rows, device=device), first)

    def logits(self, model: Any) -> torch.Tensor:
        """Logits after the tokens from `first` on: [samples, length - first, vocabulary]."""
        kept = self.ids.shape[1] - self.first
        cuda = self.ids.device.type == "cuda"
        with torch.autocast(self.ids.device.type, torch.bfloat16, enabled=cuda):
            out = model(input_ids=self.ids, logits_to_keep=kept, use_cache=False)
        logits: torch.Tensor = out.logits.float()
        return logits

    def column(self, place: int) -> int:
        """Where the logits after token `place` are."""
        return place - self.first


def losses(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
    """The loss of each sample, in nats a token or decision: [samples]."""
    return _writing(batch, logits) + _deciding(batch, logits)


def divergence(batch: Batch, logits: torch.Tensor, untuned: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of the answers from the untuned model, in nats a token."""
    rows, columns, _, weights = _written(batch)
    tuned = functional.log_softmax(logits[rows, columns], -1)
    before = functional.log_softmax(untuned[rows, columns], -1)
    each = functional.kl_div(tuned, before, reduction="none", log_target=True).sum(-1)
    return (each * weights).sum() / len(batch.samples)


def _writing(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the written tokens, each sample's mean."""
    rows, columns, targets, weights = _written(batch)
    found = logits.new_zeros(len(batch.samples))
    if not len(rows):
        return found
    each = functional.cross_entropy(logits[rows, columns], targets, reduction="none")
    return found.index_add(0, rows, each * weights)


def _written(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row, column, token and weight of every token to be written; a sample's weights sum to 1."""
    rows, columns, targets, weights = [], [], [], []
    for row, sample in enumerate(batch.samples):
        for place in range(len(sample.tokens) - sample.written, len(sample.tokens)):
            rows.append(row)
            columns.append(batch.column(place - 1))
            targets.append(sample.tokens[place])
            weights.append(1 / sample.written)
    device = batch.ids.device
    return (
        torch.tensor(rows, device=device, dtype=torch.long),
        torch.tensor(columns, device=device, dtype=torch.long),
        torch.tensor(targets, device=device, dtype=torch.long),
        torch.tensor(weights, device=device),
    )


def _deciding(batch: Batch, logits: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the choices, among their candidates, each sample's mean."""
    found = logits.new_zeros(len(batch.samples))
    places = [
        (row, sample, choice)
        for row, sample in enumerate(batch.samples)
        for choice in sample.choices
    ]
    if not places:
        return found
    device = logits.device
    most = max(len(choice.candidates) for _, _, choice in places)
    tokens = torch.zeros(len(places), most, dtype=torch.long)
    shares = torch.zeros(len(places), most)
    absent = torch.ones(len(places), most, dtype=torch.bool)
    for index, (_, _, choice) in enumerate(places):
        count = len(choice.candidates)
        tokens[index, :count] = torch.tensor(choice.candidates)
        shares[index, :count] = torch.tensor(choice.shares)
        absent[index, :count] = False
    rows = torch.tensor([row for row, _, _ in places], device=device)
    columns = torch.tensor([batch.column(choice.place) for _, _, choice in places], device=device)
    weights = torch.tensor([1 / len(sample.choices) for _, sample, _ in places], device=device)
    absent = absent.to(device)
    scores = logits[rows, columns].gather(1, tokens.to(device))
    chances = functional.log_softmax(scores.masked_fill(absent, -torch.inf), -1)
    each = -(shares.to(device) * chances.masked_fill(absent, 0.0)).sum(-1)
    return found.index_add(0, rows, each * weights)

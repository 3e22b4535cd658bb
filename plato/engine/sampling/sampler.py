"""Samples tokens from logits: for a whole batch at once, and reproducibly.

A row's token depends bit for bit on its own logits and `Draw` alone, not on the rest of the batch.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from plato.engine.errors import RequestRefusedError
from plato.engine.protocol import SamplingParams
from plato.engine.sampling.distribution import sample, take_rows
from plato.engine.sampling.matcher import Mask


@dataclass(frozen=True, slots=True)
class Draw:
    """Sampling input of one row of logits."""

    params: SamplingParams
    node: int
    output: Sequence[int]
    """Output tokens so far; their number is the position."""
    mask: Mask | None = None
    """Tokens that the grammar allows."""
    score: tuple[int, ...] = ()
    """Tokens whose log probabilities are reported, after the grammar."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The token sampled for one row."""

    token: int
    """-1 if there is an error."""
    scores: tuple[float, ...] = ()
    """Log probabilities of `Draw.score`."""
    error: RequestRefusedError | None = None
    """Set if the row's grammar allows no token."""


def choose(logits: torch.Tensor, draws: Sequence[Draw]) -> list[Choice]:
    """Sample a token for every row, in the order that `SamplingParams` documents.

    Args:
        logits: float32 [rows, vocabulary]; may be overwritten.
        draws: One for each row, with parameters that `check` accepts.
    """
    logits = logits.contiguous()
    _add_bias_(logits, draws)
    _penalise_(logits, draws)
    sampled = [row for row, draw in enumerate(draws) if draw.params.temperature > 0]
    exact = {*sampled, *(row for row, draw in enumerate(draws) if draw.score)}
    errors = _allow_only_(logits, draws, exact)
    scores = {
        row: log_probabilities(logits[row], draw.score)
        for row, draw in enumerate(draws)
        if draw.score
    }

    tokens = _most_likely(logits)
    # If the most likely token is allowed, it is the most likely allowed one: checking one token
    # costs a hundredth of computing the mask.
    refused = {
        row
        for row, draw in enumerate(draws)
        if draw.mask is not None and row not in exact and not draw.mask.allows(tokens[row])
    }
    if refused:
        errors |= _allow_only_(logits, draws, refused)
        rows = sorted(refused)
        for row, token in zip(rows, _most_likely(take_rows(logits, rows)), strict=True):
            tokens[row] = token
    if sampled:
        drawn = sample(
            take_rows(logits, sampled),
            [draws[row].params for row in sampled],
            [_number(draws[row]) for row in sampled],
        )
        for row, token in zip(sampled, drawn, strict=True):
            tokens[row] = token
    return [
        Choice(-1, error=errors[row]) if row in errors else Choice(token, scores.get(row, ()))
        for row, token in enumerate(tokens)
    ]


def uniform(seed: int, node: int, position: int) -> float:
    """A number in [0, 1) that depends on its key alone, not on the batch or the device."""
    key = f"{seed}:{node}:{position}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    # 53 bits: more would round up to 1.0 at the upper end.
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def _number(draw: Draw) -> float:
    return uniform(draw.params.seed, draw.node, len(draw.output))


def log_probabilities(logits: torch.Tensor, tokens: Sequence[int]) -> tuple[float, ...]:
    """Log probabilities of `tokens` under `logits` [vocabulary]."""
    every = torch.log_softmax(logits, -1)
    return tuple(every[torch.tensor(tokens, device=logits.device)].tolist())


def _add_bias_(logits: torch.Tensor, draws: Sequence[Draw]) -> None:
    """Add every row's `logit_bias` in place."""
    vocabulary = logits.shape[1]
    pairs = [
        (row * vocabulary + token, value)
        for row, draw in enumerate(draws)
        for token, value in draw.params.logit_bias
    ]
    if pairs:
        places, values = zip(*pairs, strict=True)
        index = torch.tensor(places, device=logits.device)
        logits.view(-1)[index] += torch.tensor(values, dtype=logits.dtype, device=logits.device)


def _penalise_(logits: torch.Tensor, draws: Sequence[Draw]) -> None:
    """Apply the penalties for the tokens in each row's output, in place."""
    vocabulary = logits.shape[1]
    places: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    for row, draw in enumerate(draws):
        params = draw.params
        if not params.penalises:
            continue
        counts = Counter(draw.output)
        counts.update(set(params.penalised))
        for token in counts.keys() & params.penalty_exempt:
            del counts[token]
        times = np.fromiter(counts.values(), np.float32, len(counts))
        places.append(np.fromiter(counts, np.int64, len(counts)) + row * vocabulary)
        less = params.frequency_penalty * times + params.presence_penalty
        columns.append(np.stack([np.full_like(times, params.repetition_penalty), less]))
    if not places:
        return
    index = torch.from_numpy(np.concatenate(places)).to(logits.device)
    factor, less = torch.from_numpy(np.concatenate(columns, 1)).to(logits)
    flat = logits.view(-1)
    seen = flat[index]
    flat[index] = torch.where(seen > 0, seen / factor, seen * factor) - less


def _allow_only_(
    logits: torch.Tensor, draws: Sequence[Draw], rows: Iterable[int]
) -> dict[int, RequestRefusedError]:
    """Set tokens that the grammars of `rows` forbid to -inf in place; returns errors by row."""
    masks: dict[int, np.ndarray] = {}
    errors: dict[int, RequestRefusedError] = {}
    for row in rows:
        mask = draws[row].mask
        if mask is None:
            continue
        try:
            packed = np.frombuffer(mask.bits(), np.uint8)
        except RequestRefusedError as error:
            errors[row] = error
        else:
            # The vocabulary may be padded beyond the tokenizer's: zeros there.
            masks[row] = np.unpackbits(packed, count=logits.shape[1], bitorder="little")
    if masks:
        index = torch.tensor(list(masks), device=logits.device)
        allowed = torch.from_numpy(np.stack(list(masks.values()))).to(logits)
        # Ten times faster than masked_fill.
        limits = allowed.sub_(0.5).mul_(math.inf)
        logits.index_copy_(0, index, limits.minimum(logits.index_select(0, index)))
    return errors


def _most_likely(logits: torch.Tensor) -> list[int]:
    """The first of the greatest logits of every row."""
    # numpy's argmax is vectorised: 0.03 ms for 8 rows of 49,152, against torch's 0.6.
    tokens = logits.numpy().argmax(1) if logits.is_cpu else logits.argmax(1)
    return cast("list[int]", tokens.tolist())

"""Samples tokens from filtered distributions, for a whole batch at once.

A row's token must not depend on the other rows of the batch. The order of summation does, and with
it the last bit of a floating-point sum; so sums here are over integers. A token's *mass* is its
probability relative to the most likely token's, in units of 2**-40; a token below one unit is
never sampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from plato.engine.protocol import SamplingParams

_UNIT = 1 << 40
"""The mass of the most likely token; 2**23 of them still fit an int64."""
_RANKED = (64, 2048)
"""How many of the most likely tokens are sorted to find the cutoff of top-k and top-p, before all
are: a partial sort is many times faster, and usually enough."""
_STEEPEST = 1e30
"""Bound of the inverse temperature: a greater one would overflow float32."""


def sample(
    logits: torch.Tensor, params: Sequence[SamplingParams], numbers: Sequence[float]
) -> list[int]:
    """Sample a token for every row, after temperature and filters.

    The filters are applied in vLLM's order: min-p, top-k, top-p, each on what the previous one
    kept. Tokens as likely as the last one that top-k or top-p keeps are kept too, so that the
    order among equals does not matter.

    Args:
        logits: float32 [rows, vocabulary]; overwritten.
        params: of each row, with temperatures above 0.
        numbers: uniform in [0, 1), one for each row; `sampling.uniform` draws them.
    """
    ends = filtered(masses(logits, [each.temperature for each in params]), params).cumsum_(1)
    total = ends[:, -1:]
    # Below the total even after rounding: a number is at least one rounding step below 1.
    target = (_column(numbers, total, torch.float64) * total).long()
    tokens = torch.searchsorted(ends, target, right=True)
    # Only NaN logits lead past the end; such a model still gets a token.
    return cast("list[int]", tokens.clamp_(max=ends.shape[1] - 1).squeeze(1).tolist())


def masses(logits: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
    """exp((logit - greatest logit) / temperature) in whole units, int64 [rows, vocabulary].

    Overwrites `logits`.
    """
    steepness = [min(1 / each, _STEEPEST) for each in temperatures]
    # In place: at these sizes allocating memory costs more than the arithmetic.
    exponents = logits.sub_(logits.amax(1, keepdim=True)).mul_(_column(steepness, logits))
    if exponents.is_cpu:
        # In torch's vectorised exp, rounding depends on an element's index; in numpy's it does not.
        np.exp(exponents.numpy(), out=exponents.numpy())
    else:
        exponents.exp_()
    return exponents.mul_(_UNIT).long()


def filtered(masses: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    """`masses` with 0 for tokens that min-p, top-k and top-p remove."""
    vocabulary = masses.shape[1]
    floors = [math.ceil(each.min_p * _UNIT) for each in params]
    ranked = [row for row, each in enumerate(params) if each.top_k or each.top_p < 1]
    for count in (*_RANKED, vocabulary):
        if not ranked:
            break
        found = _ranked_floors(
            take_rows(masses, ranked),
            [floors[row] for row in ranked],
            [min(params[row].top_k or vocabulary, vocabulary) for row in ranked],
            [params[row].top_p for row in ranked],
            min(count, vocabulary),
        )
        for row, floor in zip(ranked, found, strict=True):
            floors[row] = max(floors[row], floor)  # A floor of -1 changes nothing.
        ranked = [row for row, floor in zip(ranked, found, strict=True) if floor < 0]
    if not any(floors):
        return masses
    return torch.where(masses >= _column(floors, masses), masses, 0)


def _ranked_floors(
    masses: torch.Tensor,
    floors: Sequence[int],
    top_k: Sequence[int],
    top_p: Sequence[float],
    count: int,
) -> list[int]:
    """The smallest mass that top-k and then top-p keep in each row, of those that `floors` keep.

    -1 where the `count` most likely tokens do not determine it. A `top_k` of the whole vocabulary
    and a `top_p` of 1 keep everything.
    """
    vocabulary = masses.shape[1]
    ranked = masses.topk(count, dim=1).values
    floor = _column(floors, masses)
    if min(top_k) < vocabulary:
        place = _column([min(each, count) - 1 for each in top_k], masses)
        cuts = _column([each < vocabulary for each in top_k], masses, torch.bool)
        floor = torch.where(cuts, torch.maximum(floor, ranked.gather(1, place)), floor)
    known = _column([each <= count or each == vocabulary for each in top_k], masses, torch.bool)
    if min(top_p) < 1:
        if bool(floor.any()):
            ranked = torch.where(ranked >= floor, ranked, 0)
            masses = torch.where(masses >= floor, masses, 0)
        share = _column(top_p, masses, torch.float64)
        goal = share * masses.sum(1, keepdim=True)
        ends = ranked.cumsum(1)
        # Nucleus sampling (Holtzman et al., arXiv 1904.09751): the smallest set of the most
        # likely tokens that reaches the share; the first one always stays.
        edge = torch.where(ends - ranked < goal, ranked, _UNIT).amin(1, keepdim=True)
        floor = torch.where(share < 1, torch.maximum(floor, edge), floor)
        known &= (share >= 1) | (ends[:, -1:] >= goal)
    if count < vocabulary:
        floor = torch.where(known, floor, -1)
    return cast("list[int]", floor.squeeze(1).tolist())


def take_rows(tensor: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """These rows of `tensor`; not copied if they are all rows."""
    if len(rows) == len(tensor):
        return tensor
    return tensor.index_select(0, torch.tensor(rows, device=tensor.device))


def _column(
    values: Sequence[float], like: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """`values` as [rows, 1], on the device and by default in the type of `like`."""
    return torch.tensor(values, dtype=dtype or like.dtype, device=like.device).unsqueeze(1)

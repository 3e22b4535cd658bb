"""Choosing tokens from logits, reproducibly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from plato.engine.protocol import SamplingParams


def uniform(seed: int, node: int, position: int) -> float:
    """A number in [0, 1) that depends on its key alone: not on the batch, nor on the device."""
    key = f"{seed}:{node}:{position}".encode()
    digest = hashlib.blake2b(key, digest_size=8).digest()
    # 53 bits: more would be rounded, to 1.0 at the upper end.
    return (int.from_bytes(digest, "little") >> 11) / 2**53


def penalise_(logits: torch.Tensor, output: Sequence[int], params: SamplingParams) -> None:
    """Apply the repetition penalty in place to `logits` [vocabulary]."""
    if params.repetition_penalty == 1.0:
        return
    seen = sorted(set(output) - params.penalty_exempt)
    if not seen:
        return
    index = torch.tensor(seen, device=logits.device)
    chosen = logits[index]
    factor = params.repetition_penalty
    logits[index] = torch.where(chosen > 0, chosen / factor, chosen * factor)


def allow_only_(logits: torch.Tensor, mask: bytes) -> None:
    """Set logits [vocabulary] to -inf in place where the bit of `mask` (little-endian) is 0."""
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    allowed = torch.from_numpy(bits[: len(logits)].astype(bool)).to(logits.device)
    logits[: len(allowed)].masked_fill_(~allowed, float("-inf"))
    # A vocabulary may be padded past what the tokenizer knows.
    logits[len(allowed) :] = float("-inf")


def top_alternatives(logits: torch.Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` most likely tokens with their log probabilities, impossible ones left out."""
    values, tokens = torch.log_softmax(logits, -1).topk(min(count, len(logits)))
    pairs = zip(tokens.tolist(), values.tolist(), strict=True)
    return tuple((token, value) for token, value in pairs if value > float("-inf"))


def sample(logits: torch.Tensor, params: SamplingParams, node: int, position: int) -> int:
    """Choose a token from `logits` [vocabulary] for one output position."""
    if params.temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.double() / params.temperature, -1)
    if params.top_p < 1:
        ordered, order = probabilities.sort(descending=True, stable=True)
        # Nucleus sampling (Holtzman et al., arXiv 1904.09751): the smallest set of the most
        # likely tokens that reaches top_p; the first one always stays.
        outside = ordered.cumsum(-1) - ordered >= params.top_p
        probabilities[order[outside]] = 0
    cumulative = probabilities.cumsum(-1)
    target = uniform(params.seed, node, position) * cumulative[-1]
    return int(torch.searchsorted(cumulative, target, right=True).clamp(max=len(logits) - 1))

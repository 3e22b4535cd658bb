"""Attention over the KV pool: the layout of a step's tokens, and attention in torch.

A step computes a flat row of tokens of many sequences: first the sequences with one new token,
then those with several (prefill, forced tokens); those that are computed with the adapter are
consecutive (see `Rows.order`). On a CPU our own kernels compute them all and read
KV in place. Elsewhere `tree_attention` replaces transformers' attention: sequences with one new
token in one padded batch, the others one by one with a causal mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from plato.engine.torch.kernels import QueryRows
from plato.engine.torch.pool import KVPool

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rows:
    """New tokens of one sequence: `count` tokens that end at position `end`."""

    slots: NDArray[np.int64]
    """Slot of every position in [0, end)."""
    count: int
    adapted: bool = False
    """Whether they are computed with the model's adapter, if it has one."""

    @property
    def order(self) -> tuple[bool, bool]:
        """Sort key of a step's rows.

        Attention needs sequences with one new token first, and the adapter consecutive tokens.
        """
        several = self.count > 1
        return several, self.adapted != several

    @property
    def end(self) -> int:
        """One past the position of the last new token."""
        return len(self.slots)


@dataclass(frozen=True, slots=True)
class Span:
    """A sequence with several new tokens: rows [start, stop) of the step."""

    start: int
    stop: int
    slots: torch.Tensor
    """int64 [length]: slots of all its positions, including the new ones."""
    mask: torch.Tensor | None
    """bool [stop - start, length], True where a row attends; `None`: causal."""


class StepBatch:
    """Positions and slots of a step's tokens: built once, used by every layer."""

    def __init__(
        self, pool: KVPool, rows: list[Rows], device: torch.device, tile: int | None = None
    ) -> None:
        """`tile`: rows that the native kernel computes together; `None`: torch does."""
        self.pool = pool
        self.adapted = _adapted(rows)
        """The tokens that are computed with the adapter."""
        self.new_slots = _tensor(np.concatenate([row.slots[-row.count :] for row in rows]), device)
        self.positions = _tensor(
            np.concatenate([np.arange(row.end - row.count, row.end) for row in rows]), device
        )
        self.query_rows = None
        self.single_slots: torch.Tensor | None = None
        self.single_mask: torch.Tensor | None = None
        self.spans: list[Span] = []
        if tile is not None:
            self.query_rows = _query_rows(rows, tile, device)
            return
        self.singles = sum(row.count == 1 for row in rows)
        """Number of leading rows that are the one new token of their sequence."""
        if any(row.count == 1 for row in rows[self.singles :]):
            raise AssertionError("sequences with one new token must come first")
        self.single_slots, self.single_mask = _pad(rows[: self.singles], device)
        self.spans = _spans(rows[self.singles :], self.singles, device)


def _adapted(rows: list[Rows]) -> range:
    starts = [0, *accumulate(row.count for row in rows)]
    found = [index for index, row in enumerate(rows) if row.adapted]
    if not found:
        return range(0)
    if found[-1] - found[0] >= len(found):
        raise AssertionError("sequences with the adapter must be consecutive")
    return range(starts[found[0]], starts[found[-1] + 1])


def _query_rows(rows: list[Rows], tile: int, device: torch.device) -> QueryRows:
    counts = np.array([row.count for row in rows])
    ends = np.array([row.end for row in rows])
    begins = ends.cumsum() - ends
    lengths = [np.arange(row.end - row.count, row.end) + 1 for row in rows]
    firsts = counts.cumsum() - counts
    tiles = [
        np.arange(first, first + row.count, tile) for first, row in zip(firsts, rows, strict=True)
    ]
    return QueryRows(
        slots=_tensor(np.concatenate([row.slots for row in rows]), device),
        offsets=_tensor(np.repeat(begins, counts), device),
        lengths=_tensor(np.concatenate(lengths), device),
        tiles=_tensor(np.concatenate([*tiles, [counts.sum()]]), device),
    )


def _pad(rows: list[Rows], device: torch.device) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Slots [n, longest] and a mask [n, 1, 1, longest] of sequences with one new token."""
    if not rows:
        return None, None
    lengths = np.array([row.end for row in rows])
    slots = np.empty((len(rows), lengths.max()), np.int64)
    for index, row in enumerate(rows):
        slots[index, : row.end] = row.slots
        # The mask multiplies padding by 0, which gives NaN where an uninitialised slot holds NaN:
        # pad with a computed slot.
        slots[index, row.end :] = row.slots[0]
    if lengths.min() == lengths.max():
        return _tensor(slots, device), None
    mask = np.arange(lengths.max())[None, :] < lengths[:, None]
    return _tensor(slots, device), _tensor(mask, device)[:, None, None, :]


def _spans(rows: list[Rows], start: int, device: torch.device) -> list[Span]:
    spans: list[Span] = []
    for row in rows:
        mask = None
        if row.count < row.end:
            mask = _causal_mask(row, device)
        spans.append(Span(start, start + row.count, _tensor(row.slots, device), mask))
        start += row.count
    return spans


def _causal_mask(row: Rows, device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        from torch.nn.attention.bias import causal_lower_right

        # FlashAttention takes no other mask. Without it, attention of grouped queries falls back
        # to plain operations: prefilling took three times as long.
        mask: torch.Tensor = causal_lower_right(row.count, row.end)
        return mask
    positions = np.arange(row.end)
    return _tensor(positions[None, :] <= positions[-row.count :, None], device)


def _tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    step_batch: StepBatch,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Write the new KV into the pool and attend over it.

    Shapes: `query` [1, heads, tokens, dim], `key` and `value` [1, KV heads, tokens, dim]; the
    result is [1, tokens, heads, dim], as transformers expects.
    """
    layer: int = module.layer_idx  # type: ignore[assignment]
    keys, values = step_batch.pool.keys[layer], step_batch.pool.values[layer]
    keys.index_copy_(0, step_batch.new_slots, key[0].transpose(0, 1).to(keys.dtype))
    values.index_copy_(0, step_batch.new_slots, value[0].transpose(0, 1).to(values.dtype))

    heads, tokens, dim = query.shape[1:]
    output = query.new_empty(tokens, heads, dim)
    singles = step_batch.singles
    if step_batch.single_slots is not None:
        # With one new token each, the query heads of a KV head act as its queries.
        output[:singles] = sdpa(
            query[0, :, :singles].transpose(0, 1).reshape(singles, key.shape[1], -1, dim),
            keys[step_batch.single_slots].transpose(1, 2).to(query.dtype),
            values[step_batch.single_slots].transpose(1, 2).to(query.dtype),
            attn_mask=step_batch.single_mask,
            scale=scaling,
        ).reshape(singles, heads, dim)
    for span in step_batch.spans:
        output[span.start : span.stop] = sdpa(
            query[:, :, span.start : span.stop],
            keys[span.slots].transpose(0, 1)[None].to(query.dtype),
            values[span.slots].transpose(0, 1)[None].to(query.dtype),
            attn_mask=span.mask,
            is_causal=span.mask is None,
            scale=scaling,
            enable_gqa=key.shape[1] != heads,
        )[0].transpose(0, 1)
    return output[None], None

"""The kernels in plain torch: for machines without a compiler, and as the reference in tests.

Shapes are in the docstrings of `Kernels`. Activations are float32; KV is float32 or bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention, silu


@dataclass(frozen=True, slots=True)
class QueryRows:
    """The slots that each row of a step attends to.

    Row r attends to the slots `slots[offsets[r] : offsets[r] + lengths[r]]`.
    """

    slots: torch.Tensor
    """int64, flat: the slots of all sequences, concatenated."""
    offsets: torch.Tensor
    """int64 [rows]: index in `slots` where a row's sequence begins."""
    lengths: torch.Tensor
    """int64 [rows]: number of slots that a row attends to."""
    tiles: torch.Tensor
    """int64 [tiles + 1]: splits the rows into short runs of consecutive rows of one sequence, which
    the native kernel computes together."""


class Kernels(Protocol):
    """The operations of a decoder layer besides matrix products."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """Root mean square norm over the last dimension (arXiv 1910.07467)."""
        ...

    def swiglu(self, both: torch.Tensor) -> torch.Tensor:
        """[rows, 2 * columns], gate then up, to silu(gate) * up (arXiv 2002.05202)."""
        ...

    def rotate_and_store(
        self,
        qkv: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        slots: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """Rotate queries and keys of `qkv` [rows, heads + 2 * KV heads, dim] in place, store KV.

        `rotary` are cosines and sines [rows, dim] (arXiv 2104.09864); `slots` [rows] are
        the slots of the rows' KV in `keys` and `values` [capacity, KV heads, dim].
        """
        ...

    def attend(
        self,
        qkv: torch.Tensor,
        rows: QueryRows,
        keys: torch.Tensor,
        values: torch.Tensor,
        scaling: float,
        out: torch.Tensor,
    ) -> None:
        """Attention of one query per row of `qkv` into `out` [rows, heads, dim].

        `keys` and `values` are [capacity, KV heads, dim].
        """
        ...


class PortableKernels:
    """The kernels as torch operations."""

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """See `Kernels`."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight

    def swiglu(self, both: torch.Tensor) -> torch.Tensor:
        """See `Kernels`."""
        gate, up = both.chunk(2, dim=-1)
        return silu(gate) * up

    def rotate_and_store(
        self,
        qkv: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        slots: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """See `Kernels`."""
        kv_heads = keys.shape[1]
        turned = qkv[:, :-kv_heads]
        first, second = turned.chunk(2, dim=-1)
        cosine, sine = (part[:, None] for part in rotary)
        turned.copy_(turned * cosine + torch.cat([-second, first], dim=-1) * sine)
        keys.index_copy_(0, slots, qkv[:, -2 * kv_heads : -kv_heads].to(keys.dtype))
        values.index_copy_(0, slots, qkv[:, -kv_heads:].to(values.dtype))

    def attend(
        self,
        qkv: torch.Tensor,
        rows: QueryRows,
        keys: torch.Tensor,
        values: torch.Tensor,
        scaling: float,
        out: torch.Tensor,
    ) -> None:
        """See `Kernels`."""
        count, heads, dim = out.shape
        kv_heads = keys.shape[1]
        for row in range(count):
            start = int(rows.offsets[row])
            path = rows.slots[start : start + int(rows.lengths[row])]
            # The query heads of a KV head act as its queries.
            out[row] = scaled_dot_product_attention(
                qkv[row, :heads].view(1, kv_heads, -1, dim),
                keys[path].transpose(0, 1)[None].to(out.dtype),
                values[path].transpose(0, 1)[None].to(out.dtype),
                scale=scaling,
            ).view(heads, dim)

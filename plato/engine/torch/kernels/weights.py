"""Weights as the compiled kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import pad

from plato.engine.torch.kernels.memory import huge_pages

TILE_OUTPUTS = 16
"""Outputs of an int8 product that one task computes together."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change that an adapter makes to a linear layer: expand @ (reduce @ x) + bias.

    LoRA (arXiv 2106.09685), whose names for the two matrices are A and B.
    """

    reduce: torch.Tensor
    """[rank, in features]."""
    expand: torch.Tensor
    """[out features, rank], with the adapter's scaling."""
    bias: torch.Tensor | None
    """[out features]."""


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """The weight of a linear layer in int8, with a scale per output."""

    packed: torch.Tensor
    """int8 [blocks of outputs, groups of inputs, TILE_OUTPUTS, group], padded with zeros."""
    scales: torch.Tensor
    """float32 [outputs]."""
    columns: int
    outputs: int

    @property
    def width(self) -> int:
        """Number of inputs, padded."""
        return self.packed.shape[1] * self.packed.shape[3]


@dataclass(frozen=True, slots=True)
class PackedLowRank:
    """A `LowRank` in int8, with a scale per row of both matrices.

    Its input `x` is rounded to 16 bits, as for the layer's own weight; what is between the two
    products is float32.
    """

    reduce: PackedWeight
    expand: torch.Tensor
    """int8 [blocks of outputs, width, TILE_OUTPUTS]: a block has only the columns that it uses, as
    those of several layers that are computed as one are block diagonal."""
    starts: torch.Tensor
    """int64 [blocks]: the first column of each block."""
    scales: torch.Tensor
    """float32 [blocks * TILE_OUTPUTS]."""
    bias: torch.Tensor | None
    """float32 [blocks * TILE_OUTPUTS]."""


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A linear layer."""

    weight: PackedWeight
    bias: torch.Tensor | None
    """float32 [outputs]."""
    change: PackedLowRank | None
    """By an adapter, for the rows that are computed with it."""


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """Weights of a decoder layer. Norms are float32 vectors."""

    attention_norm: torch.Tensor
    mlp_norm: torch.Tensor
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    eps: float
    qkv: PackedLinear
    output: PackedLinear
    gate_up: PackedLinear
    down: PackedLinear

    @property
    def linears(self) -> tuple[PackedLinear, ...]:
        """The linear layers, in the order of their use."""
        return self.qkv, self.output, self.gate_up, self.down


def rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight [outputs, columns] in int8, with 127 as the largest of each output, and scales.

    Outputs are padded with zeros to a multiple of `TILE_OUTPUTS`; the scales [outputs] are not.
    """
    weight = weight.float()
    scales = (weight.abs().amax(1) / 127.0).clamp_min(torch.finfo(torch.float32).tiny)
    whole = (weight / scales[:, None]).round().to(torch.int8)
    return pad(whole, (0, 0, 0, -len(weight) % TILE_OUTPUTS)), scales


def pack_expand(expand: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`expand`, `starts` and `scales` of a `PackedLowRank`, of `expand` [outputs, rank]."""
    whole, scales = rounded(expand)
    rank = whole.shape[1]
    blocks = whole.view(-1, TILE_OUTPUTS, rank)
    used = blocks.any(1).int()
    starts = used.argmax(1)
    ends = torch.where(used.any(1), rank - used.flip(1).argmax(1), starts + 1)
    width = int((ends - starts).max())
    starts = starts.clamp(max=rank - width)
    columns = (starts[:, None] + torch.arange(width))[:, None].expand(-1, TILE_OUTPUTS, -1)
    packed = blocks.gather(2, columns).transpose(1, 2).contiguous()
    return packed, starts, pad_outputs(scales)


def pad_outputs(values: torch.Tensor) -> torch.Tensor:
    """float32 values [outputs], padded with zeros to a multiple of `TILE_OUTPUTS`."""
    return pad(values.float(), (0, -len(values) % TILE_OUTPUTS))


def gathered(layers: Sequence[LayerWeights]) -> list[LayerWeights]:
    """The same layers with their packed weights consecutive on huge pages.

    A step reads all of them: on small pages, TLB misses take a tenth of the time.
    """
    memory = huge_pages(sum(part.numel() for layer in layers for part in _parts(layer)))
    memory = memory.view(torch.int8)
    at = 0

    def moved(part: torch.Tensor) -> torch.Tensor:
        nonlocal at
        copy = memory[at : at + part.numel()].view(part.shape)
        at += part.numel()
        return copy.copy_(part)

    def moved_linear(linear: PackedLinear) -> PackedLinear:
        weight = replace(linear.weight, packed=moved(linear.weight.packed))
        change = linear.change
        if change is not None:
            reduce = replace(change.reduce, packed=moved(change.reduce.packed))
            change = replace(change, reduce=reduce, expand=moved(change.expand))
        return replace(linear, weight=weight, change=change)

    return [
        replace(
            layer,
            qkv=moved_linear(layer.qkv),
            output=moved_linear(layer.output),
            gate_up=moved_linear(layer.gate_up),
            down=moved_linear(layer.down),
        )
        for layer in layers
    ]


def _parts(layer: LayerWeights) -> list[torch.Tensor]:
    """The int8 tensors of a layer."""
    parts: list[torch.Tensor] = []
    for linear in layer.linears:
        parts.append(linear.weight.packed)
        if linear.change is not None:
            parts += linear.change.reduce.packed, linear.change.expand
    return parts

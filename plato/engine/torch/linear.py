"""Linear layers for a few rows at a time, which is what decoding is.

Decoding is bound by reading weights, and a matrix product with few rows should take as long as
reading the matrix once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache

import torch
from torch import nn

from plato.engine.torch.kernels import NativeKernels

LinearFactory = Callable[[torch.Tensor, torch.Tensor | None], nn.Module]
"""Makes a layer from a weight [out features, in features] and a bias."""


class RowsLinear(nn.Module):
    """A linear layer computed as weight @ rows.T, with an odd few rows padded to an even number.

    On some processors MKL's products of few rows take longer than reading the matrix, as
    `nn.Linear` asks for them: on two AMD cores (Zen 3) all linears of the default model take 32,
    56, 47 and 60 ms at 1, 2, 4 and 8 rows in float32. Asked for the transposed product they take
    33, 13, 25 and 56 ms; a single row is quickest as one of two. On two Intel cores (Sapphire
    Rapids) it is the other way round: 18, 18, 29 and 36 ms, and 45 ms transposed, at any width.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in features] to [..., out features]."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        count = len(rows)
        if count in (1, 3):
            rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
        product = torch.mm(self.weight, rows.t()).t()[:count]
        if self.bias is not None:
            product = product + self.bias
        return product.contiguous().view(*inputs.shape[:-1], -1)


class PlainLinear(nn.Module):
    """A linear layer as torch computes it."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in features] to [..., out features]."""
        return torch.nn.functional.linear(inputs, self.weight, self.bias)


@cache
def fastest_float_linear() -> LinearFactory:
    """The layer for float32 that is quicker with few rows on this processor, as measured once.

    Takes some milliseconds, in the thread and with the number of threads of its caller.
    """
    weight = torch.zeros(1536, 576)
    factories: tuple[LinearFactory, ...] = (PlainLinear, RowsLinear)
    return min(factories, key=lambda factory: _seconds_with_few_rows(factory(weight, None)))


@torch.inference_mode()
def _seconds_with_few_rows(layer: nn.Module) -> float:
    """Seconds of a layer for 1, 2, 4 and 8 rows together, each the best of a few."""

    def once(rows: torch.Tensor) -> float:
        start = time.perf_counter()
        layer(rows)
        return time.perf_counter() - start

    inputs = [torch.zeros(count, 576) for count in (1, 2, 4, 8)]
    return sum(min(once(rows) for _ in range(10)) for rows in inputs)


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, a scale for each output, and 16 bits of the inputs.

    Inputs of 8 bits would lose more than the weights do (measured on the default model:
    perplexity 4 to 6 % up instead of 1 %), and the second byte costs nothing where decoding is
    bound by reading weights: processors multiply 16 bits as fast as they read 8.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, *, kernels: NativeKernels
    ) -> None:
        super().__init__()
        self._kernels = kernels
        self._weight = kernels.pack(weight)
        self.bias = bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in features] to [..., out features], both float32."""
        rows = inputs.reshape(-1, inputs.shape[-1]).contiguous()
        return self._kernels.linear(rows, self._weight, self.bias).view(*inputs.shape[:-1], -1)


def merged(linears: Iterable[nn.Linear]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias that give the outputs of several linears, one after the other."""
    parts = list(linears)
    weights: list[torch.Tensor] = [part.weight for part in parts]
    weight = torch.cat(weights)
    if all(part.bias is None for part in parts):
        return weight, None
    biases: list[torch.Tensor] = [
        part.weight.new_zeros(part.out_features) if part.bias is None else part.bias
        for part in parts
    ]
    return weight, torch.cat(biases)


def replace_linears(module: nn.Module, factory: LinearFactory) -> None:
    """Put a layer of `factory` in the place of every `nn.Linear` below `module`."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, factory(child.weight, child.bias))
        else:
            replace_linears(child, factory)

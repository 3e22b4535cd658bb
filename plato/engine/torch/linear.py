"""Linear layers for a few rows at a time, as in decoding.

Decoding is bound by reading weights: a matrix product with few rows should take as long as reading
the matrix once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from plato.engine.torch.kernels import NativeKernels
from plato.engine.torch.kernels.build import cpu_vendor

LinearFactory = Callable[[torch.Tensor, torch.Tensor | None], nn.Module]
"""Creates a layer from a weight [out features, in features] and a bias."""


class RowsLinear(nn.Module):
    """A linear layer computed as weight @ rows.T, with 1 or 3 rows padded to an even number.

    On some CPUs, `nn.Linear` with few rows takes longer in MKL than reading the matrix: on two AMD
    cores (Zen 3) all linears of the default model take 32, 56, 47 and 60 ms at 1, 2, 4 and 8 rows
    in float32. The transposed product takes 33, 13, 25 and 56 ms; a single row is fastest as one
    of two. On two Intel cores (Sapphire Rapids) it is the other way round: 18, 18, 29 and 36 ms,
    and 45 ms transposed, at any width.
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


def float_linear(vendor: str | None = None) -> LinearFactory:
    """The float32 layer that is faster with few rows on the CPUs of a vendor; default: this one's.

    By a rule and not by a measurement: the two round differently, and replicas on equal machines
    must give equal texts.
    """
    return RowsLinear if (vendor or cpu_vendor()) == "AuthenticAMD" else PlainLinear


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, a scale per output, and 16-bit inputs.

    8-bit inputs would lose more precision than the weights do (on the default model, perplexity
    rises by 4 to 6 % instead of 1 %), and the second byte costs nothing where decoding is bound by
    reading weights: CPUs multiply 16 bits as fast as they read 8.
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
    """Weight and bias of one linear that computes the concatenated outputs of several."""
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
    """Replace every `nn.Linear` below `module` with a layer of `factory`."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, factory(child.weight, child.bias))
        else:
            replace_linears(child, factory)

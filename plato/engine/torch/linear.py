"""Linear layers for a few rows at a time, which is what decoding is.

Decoding is bound by reading weights, and a matrix product with few rows should take as long as
reading the matrix once. MKL's products do not, as `nn.Linear` asks for them: on the reference
machine (2 cores, AMD) all linears of the default model take 32, 56, 47 and 60 ms at 1, 2, 4 and 8
rows in float32. Asked for the transposed product, weight @ rows.T, they take 33, 13, 25 and 56 ms;
a single row is quickest as one of two.
"""

from __future__ import annotations

import torch
from torch import nn


class RowsLinear(nn.Module):
    """An `nn.Linear` computed as weight @ rows.T, with an odd few rows padded to an even number.

    Takes over the parameters of the layer it stands for.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias

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


def replace_linears(module: nn.Module) -> None:
    """Put a `RowsLinear` in the place of every `nn.Linear` below `module`."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, RowsLinear(child))
        else:
            replace_linears(child)

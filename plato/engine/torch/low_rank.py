"""The change that an adapter makes to a model, applied to some of a step's rows (LoRA).

Prompts with the adapter and without are computed in one step with one set of weights: y = W x for
all rows, plus B (A x) for those with the adapter, as in Punica (arXiv 2310.18547) and S-LoRA
(arXiv 2311.03285). It is not merged into the weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from plato.engine.errors import ModelNotSupportedError
from plato.engine.torch.kernels import LowRank
from plato.engine.torch.linear import LinearFactory, merged


class AdaptedRows:
    """Which rows of the current step are computed with the adapter; the model says so first."""

    def __init__(self) -> None:
        self.count = 0
        """All rows of the step."""
        self.rows = range(0)


class AdaptedLinear(nn.Module):
    """A linear layer with a change for the adapted rows."""

    def __init__(self, inner: nn.Module, change: LowRank, step: AdaptedRows) -> None:
        super().__init__()
        self.inner = inner
        self.change = change
        self.step = step

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in features] to [..., out features], for all rows of the step.

        Raises `ModelNotSupportedError` for some of them, as an expert of a mixture computes.
        """
        out: torch.Tensor = self.inner(inputs)
        rows, change = self.step.rows, self.change
        if not rows:
            return out
        x, y = inputs.reshape(-1, inputs.shape[-1]), out.view(-1, out.shape[-1])
        if len(x) != self.step.count:
            raise ModelNotSupportedError(
                "the adapter changes a layer that computes only some of the tokens, such as an "
                "expert; merge it into the model's weights, or leave it out"
            )
        part = slice(rows.start, rows.stop)
        product = torch.nn.functional.linear(x[part], change.reduce)
        y[part] += torch.nn.functional.linear(product, change.expand, change.bias)
        return out


def merged_linear(factory: LinearFactory, linears: Iterable[nn.Module]) -> nn.Module:
    """One linear layer that computes the concatenated outputs of several, with their changes."""
    parts = list(linears)
    inner = factory(*merged(without_change(part) for part in parts))
    change = merged_change(parts)
    if change is None:
        return inner
    step = next(part.step for part in parts if isinstance(part, AdaptedLinear))
    return AdaptedLinear(inner, change, step)


def without_change(linear: nn.Module) -> nn.Linear:
    """The layer itself."""
    return cast(nn.Linear, linear.inner if isinstance(linear, AdaptedLinear) else linear)


def merged_change(linears: Iterable[nn.Module]) -> LowRank | None:
    """The change of one linear layer that computes the concatenated outputs of several.

    `None` if none of them is changed.
    """
    parts = list(linears)
    changes = [_change(part) for part in parts]
    if not any(isinstance(part, AdaptedLinear) for part in parts):
        return None
    bias = None
    if any(change.bias is not None for change in changes):
        bias = torch.cat(
            [
                change.expand.new_zeros(len(change.expand)) if change.bias is None else change.bias
                for change in changes
            ]
        )
    reduce = torch.cat([change.reduce for change in changes])
    expand: torch.Tensor = torch.block_diag(*[change.expand for change in changes])  # type: ignore[no-untyped-call]
    return LowRank(reduce, expand, bias)


def _change(linear: nn.Module) -> LowRank:
    """The change of a linear layer, of rank 0 if there is none."""
    if isinstance(linear, AdaptedLinear):
        return linear.change
    weight = without_change(linear).weight
    outputs, inputs = weight.shape
    return LowRank(weight.new_zeros(0, inputs), weight.new_zeros(outputs, 0), None)

"""Two ways to compute a linear layer in float32: the same numbers, one of them quicker here."""

from __future__ import annotations

import pytest
import torch

from plato.engine.torch.linear import PlainLinear, RowsLinear, fastest_float_linear


@pytest.mark.parametrize("kind", [PlainLinear, RowsLinear])
@pytest.mark.parametrize("bias", [True, False])
def test_both_compute_what_torch_computes(kind: type[PlainLinear], bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 32, generator=generator)
    offset = torch.randn(48, generator=generator) if bias else None
    layer = kind(weight, offset)
    for count in range(1, 10):
        rows = torch.randn(1, count, 32, generator=generator)
        out = layer(rows)
        torch.testing.assert_close(out, torch.nn.functional.linear(rows, weight, offset))
        assert out.is_contiguous()


def test_the_choice_is_made_once() -> None:
    chosen = fastest_float_linear()
    assert chosen in (PlainLinear, RowsLinear)
    assert fastest_float_linear() is chosen

"""Two ways to compute a linear layer in float32: the same numbers, one of them quicker here."""

from __future__ import annotations

import pytest
import torch

from plato.engine.torch.kernels.build import cpu_vendor
from plato.engine.torch.linear import PlainLinear, RowsLinear, float_linear


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


@pytest.mark.hostile
def test_equal_machines_choose_the_same() -> None:
    assert float_linear("AuthenticAMD") is RowsLinear
    assert float_linear("GenuineIntel") is PlainLinear
    assert float_linear("ARM") is PlainLinear
    assert float_linear() is float_linear(cpu_vendor() or "?")

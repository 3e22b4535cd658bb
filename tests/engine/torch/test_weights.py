"""How the compiled kernels' weights are packed."""

from __future__ import annotations

import pytest
import torch

from plato.engine.torch.kernels.weights import TILE_OUTPUTS, pack_expand, rounded


@pytest.mark.parametrize(
    "shapes",
    [
        [(64, 4)],
        [(64, 4), (16, 4), (16, 4)],
        [(20, 3), (9, 0), (40, 5)],
        [(7, 1)],
        [(0, 3), (5, 1)],
    ],
    ids=str,
)
def test_a_block_of_outputs_has_the_columns_that_it_uses(shapes: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    expand: torch.Tensor = torch.block_diag(*[torch.randn(shape) for shape in shapes])  # type: ignore[no-untyped-call]
    whole, scales = rounded(expand)
    packed, starts, padded_scales = pack_expand(expand)
    width = packed.shape[1]
    found = torch.zeros_like(whole)
    for block, start in enumerate(starts.tolist()):
        outputs = slice(block * TILE_OUTPUTS, (block + 1) * TILE_OUTPUTS)
        found[outputs, start : start + width] = packed[block].t()
    assert torch.equal(found, whole)
    assert torch.equal(padded_scales[: len(scales)], scales)
    if all(outputs % TILE_OUTPUTS == 0 for outputs, _ in shapes):
        assert width == max(rank for _, rank in shapes)


def test_an_output_that_nothing_changes_is_zero() -> None:
    packed, _, _ = pack_expand(torch.zeros(20, 3))
    assert not packed.any()

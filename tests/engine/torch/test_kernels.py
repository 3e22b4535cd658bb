"""The native kernels compute what torch computes, and each row for itself."""

from __future__ import annotations

import pytest
import torch

from plato.engine.torch.kernels import NativeKernels, PortableKernels, QueryRows, new_kernels

PORTABLE = PortableKernels()
HEADS, KV_HEADS = 6, 2


@pytest.fixture(scope="module")
def native() -> NativeKernels:
    kernels = new_kernels()
    if not isinstance(kernels, NativeKernels):
        pytest.skip("this machine has no C compiler")
    return kernels


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("rows", [1, 3, 64])
class TestRows:
    def test_rms_norm(self, native: NativeKernels, rows: int) -> None:
        x, weight = torch.randn(rows, 576) * 3, torch.randn(576)
        torch.testing.assert_close(
            native.rms_norm(x, weight, 1e-5), PORTABLE.rms_norm(x, weight, 1e-5)
        )

    def test_quantize_keeps_fifteen_bits(self, native: NativeKernels, rows: int) -> None:
        x = torch.randn(rows, 577) * 10 ** torch.arange(rows).remainder(9)[:, None]
        planes, scales = native.quantize(x)
        high, low = (planes.float() - 128).chunk(2)
        error = (x - scales[:, None] * (high + low / 254)).abs().amax(-1)
        assert (error <= x.abs().amax(-1) / 2**15).all()
        expected, expected_scales = PORTABLE.quantize(x)
        torch.testing.assert_close(scales, expected_scales)
        assert (planes.int() - expected.int()).abs().max() <= 1

    def test_combine(self, native: NativeKernels, rows: int) -> None:
        products, scales, bias = torch.randn(2 * rows, 100), torch.rand(rows), torch.randn(100)
        for shift in (None, bias):
            torch.testing.assert_close(
                native.combine(products, scales, shift), PORTABLE.combine(products, scales, shift)
            )

    def test_swiglu(self, native: NativeKernels, rows: int) -> None:
        both = torch.randn(rows, 2 * 1536) * 20
        torch.testing.assert_close(native.swiglu(both), PORTABLE.swiglu(both))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim", [16, 64, 80, 128])
def test_attention(native: NativeKernels, dim: int, dtype: torch.dtype) -> None:
    lengths = torch.tensor([1, 64, 65, 300])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)[:-1]])
    slots = torch.randperm(512)[: int(lengths.max())].repeat(4)[: int(lengths.sum())]
    angle = torch.randn(4, dim // 2).repeat(1, 2)
    qkv = torch.randn(4, HEADS + 2 * KV_HEADS, dim)
    rows = QueryRows(slots, offsets, lengths, torch.arange(5))
    results = []
    for kernels in (native, PORTABLE):
        generator = torch.Generator().manual_seed(1)
        keys = torch.randn(512, KV_HEADS, dim, generator=generator).to(dtype)
        values = torch.randn(512, KV_HEADS, dim, generator=generator).to(dtype)
        mine, out = qkv.clone(), torch.empty(4, HEADS, dim)
        new = slots[offsets + lengths - 1]
        kernels.rotate_and_store(mine, (angle.cos(), angle.sin()), new, keys, values)
        kernels.attend(mine, rows, keys, values, dim**-0.5, out)
        results.append((mine, keys.float(), values.float(), out))
    for left, right in zip(*results, strict=True):
        tolerance = 2e-5 if dtype is torch.float32 else 8e-3
        torch.testing.assert_close(left, right, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_change_no_bit(native: NativeKernels, dtype: torch.dtype) -> None:
    count, length = 70, 200
    keys, values = torch.randn(2, 256, KV_HEADS, 64).to(dtype)
    qkv = torch.randn(count, HEADS + 2 * KV_HEADS, 64)
    results = []
    for tile in (1, 2, 5):
        tiles = torch.tensor([*range(0, count, tile), count])
        lengths = torch.arange(length - count, length) + 1
        rows = QueryRows(
            torch.randperm(256, generator=torch.Generator().manual_seed(2))[:length],
            torch.zeros(count, dtype=torch.int64),
            lengths,
            tiles,
        )
        out = torch.empty(count, HEADS, 64)
        native.attend(qkv, rows, keys, values, 0.125, out)
        results.append(out)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_row_gets_the_same_bits_alone_and_in_company(native: NativeKernels) -> None:
    x, weight = torch.randn(40, 576), torch.randn(576)
    both = torch.randn(40, 1152)
    planes, scales = native.quantize(x)
    alone = native.quantize(x[7:8].contiguous())
    assert torch.equal(alone[0], planes[[7, 47]])
    assert torch.equal(alone[1], scales[7:8])
    assert torch.equal(native.rms_norm(x[7:8], weight, 1e-5), native.rms_norm(x, weight, 1e-5)[7:8])
    assert torch.equal(native.swiglu(both[7:8]), native.swiglu(both)[7:8])


def test_a_row_of_zeros_stays_zero(native: NativeKernels) -> None:
    planes, scales = native.quantize(torch.zeros(2, 8))
    assert scales.tolist() == [0, 0]
    assert planes.unique().tolist() == [128]

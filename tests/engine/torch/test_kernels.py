"""The native kernels compute what torch computes, and each row for itself."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from plato.engine.torch.kernels import (
    NativeKernels,
    PortableKernels,
    QueryRows,
    new_kernels,
)
from plato.engine.torch.kernels.build import compile_kernels

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
    layer = native.pack(torch.randn(100, 576))
    assert torch.equal(native.linear(x[7:8], layer, None), native.linear(x, layer, None)[7:8])
    assert torch.equal(native.rms_norm(x[7:8], weight, 1e-5), native.rms_norm(x, weight, 1e-5)[7:8])
    assert torch.equal(native.swiglu(both[7:8]), native.swiglu(both)[7:8])


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(option, marks=pytest.mark.slow)
        for option in ("-DPLATO_PLAIN", "-DPLATO_NO_TILES")
    ],
)
def plain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> NativeKernels:
    """The kernels without what is written for one kind of processor, or for the newest."""
    output = tmp_path_factory.mktemp("kernels") / "plain.so"
    compile_kernels("cc", output, request.param)
    return NativeKernels(ctypes.CDLL(str(output)))


class TestLinear:
    @pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 95, 96, 97, 200])
    @pytest.mark.parametrize(("columns", "outputs"), [(576, 64), (1, 1), (513, 17), (1536, 100)])
    def test_is_the_product_of_the_rounded_weight(
        self, native: NativeKernels, rows: int, columns: int, outputs: int
    ) -> None:
        weight, bias = torch.randn(outputs, columns), torch.randn(outputs)
        x = torch.randn(rows, columns) * 10.0 ** torch.arange(rows).remainder(9)[:, None]
        layer = native.pack(weight)
        rounded = (weight / layer.scales[:, None]).round() * layer.scales[:, None]
        exact = x.double() @ rounded.double().T
        # Each input is off by half a step at most, a step being 1/32767 of the row's largest.
        allowed = x.abs().amax(1, keepdim=True).double() / 65534 * rounded.abs().double().sum(1)
        allowed = allowed + 1e-5 * exact.abs() + 1e-5
        assert ((native.linear(x, layer, None).double() - exact).abs() <= allowed).all()
        shifted = native.linear(x, layer, bias).double() - bias
        assert ((shifted - exact).abs() <= allowed).all()

    def test_the_largest_sums_fit(self, native: NativeKernels) -> None:
        x, weight = torch.ones(7, 4096), torch.ones(16, 4096)
        weight[1::2] = -1
        out = native.linear(x, native.pack(weight), None)
        torch.testing.assert_close(out, x @ weight.T)

    def test_every_processor_gets_the_same_bits(
        self, native: NativeKernels, plain: NativeKernels
    ) -> None:
        weight, bias = torch.randn(50, 1536), torch.randn(50)
        for rows in (1, 2, 7, 16, 17, 100, 300):
            x = torch.randn(rows, 1536)
            results = [one.linear(x, one.pack(weight), bias) for one in (native, plain)]
            assert torch.equal(*results)

    def test_a_row_of_zeros_stays_zero(self, native: NativeKernels) -> None:
        layer = native.pack(torch.cat([torch.randn(3, 8), torch.zeros(1, 8)]))
        assert not native.linear(torch.zeros(2, 8), layer, None).any()
        assert not native.linear(torch.ones(2, 8), layer, None)[:, 3].any()


class TestTeam:
    """The threads that compute a step together."""

    def test_its_size_changes_no_bit(self, native: NativeKernels) -> None:
        x, layer = torch.randn(33, 576), native.pack(torch.randn(1000, 576))
        alone = native.linear(x, layer, None)
        try:
            for threads in (2, 3, 7, 2):  # More than there are cores, too.
                native.threads = threads
                assert torch.equal(native.linear(x, layer, None), alone)
        finally:
            native.threads = 1

    def test_engines_that_compute_at_the_same_time_get_what_is_theirs(
        self, native: NativeKernels
    ) -> None:
        layer = native.pack(torch.randn(512, 576))
        inputs = [torch.randn(1 + number, 576) for number in range(4)]
        expected = [native.linear(x, layer, None) for x in inputs]

        def compute(number: int) -> bool:
            results = (native.linear(inputs[number], layer, None) for _ in range(200))
            return all(torch.equal(result, expected[number]) for result in results)

        native.threads = 2
        try:
            with ThreadPoolExecutor(4) as callers:
                assert all(callers.map(compute, range(4), timeout=60))
        finally:
            native.threads = 1

    def test_a_fork_has_a_team_of_its_own(self, native: NativeKernels) -> None:
        x, layer = torch.randn(5, 576), native.pack(torch.randn(512, 576))
        expected = native.linear(x, layer, None)
        native.threads = 2
        native.linear(x, layer, None)
        child = os.fork()
        if child == 0:
            # Nothing of the test runner's may run here.
            os._exit(0 if torch.equal(native.linear(x, layer, None), expected) else 1)
        native.threads = 1
        deadline = time.monotonic() + 30
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.01)
        assert os.waitstatus_to_exitcode(ended[1]) == 0

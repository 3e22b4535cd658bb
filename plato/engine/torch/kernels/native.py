"""The compiled kernels behind the interface of `Kernels`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from plato.engine.torch.kernels.portable import QueryRows

MAX_DIM = 256
MAX_TILE = 16
"""Query heads that one task computes together."""

TILE_OUTPUTS = 16
"""Outputs of an int8 product that one task computes together."""

_POINTER = ctypes.c_void_p
_COUNT = ctypes.c_int64
_SIGNATURES = {
    "plato_rms_norm": [_POINTER, _POINTER, ctypes.c_float, _COUNT, _COUNT, _POINTER],
    "plato_linear": [*[_POINTER] * 4, *[_COUNT] * 3, *[_POINTER] * 3],
    "plato_swiglu": [_POINTER, _COUNT, _COUNT, _POINTER],
    "plato_rotate_and_store": [
        *[_POINTER] * 4,
        *[_COUNT] * 4,
        ctypes.c_int,
        _POINTER,
        _POINTER,
    ],
    "plato_attend": [
        _POINTER,
        _COUNT,
        _POINTER,
        _POINTER,
        ctypes.c_int,
        *[_POINTER] * 4,
        *[_COUNT] * 4,
        ctypes.c_float,
        _POINTER,
    ],
}


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """The weight of a linear layer in int8, with a scale for each output."""

    packed: torch.Tensor
    """int8 [tiles, pairs of columns, TILE_OUTPUTS, 2], padded with zeros."""
    scales: torch.Tensor
    """float32 [outputs]."""
    columns: int
    outputs: int

    @classmethod
    def pack(cls, weight: torch.Tensor) -> PackedWeight:
        """Round a weight [outputs, columns] to int8, the largest of each output to 127."""
        outputs, columns = weight.shape
        weight = weight.float()
        scales = (weight.abs().amax(1) / 127.0).clamp_min(torch.finfo(torch.float32).tiny)
        rounded = (weight / scales[:, None]).round().to(torch.int8)
        rounded = pad(rounded, (0, columns % 2, 0, -outputs % TILE_OUTPUTS))
        tiles = rounded.view(-1, TILE_OUTPUTS, rounded.shape[1] // 2, 2)
        return cls(tiles.transpose(1, 2).contiguous(), scales, columns, outputs)


class NativeKernels:
    """The kernels in C. Their arguments are contiguous tensors on the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = None
        self._rms_norm = library.plato_rms_norm
        self._linear = library.plato_linear
        self._swiglu = library.plato_swiglu
        self._rotate_and_store = library.plato_rotate_and_store
        self._attend = library.plato_attend

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """See `Kernels`."""
        out = torch.empty_like(x)
        columns = x.shape[-1]
        rows = x.numel() // columns
        self._rms_norm(x.data_ptr(), weight.data_ptr(), eps, rows, columns, out.data_ptr())
        return out

    def linear(
        self, x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """A linear layer of float32 `x` [rows, columns]: float32 [rows, outputs].

        Rows are rounded to 16 bits with a scale each. A row's result is the same bits in any
        batch: integer sums are exact.
        """
        rows = len(x)
        scratch = torch.empty((rows, weight.columns + weight.columns % 2), dtype=torch.int16)
        scales = torch.empty(rows)
        out = torch.empty((rows, weight.outputs))
        self._linear(
            x.data_ptr(),
            weight.packed.data_ptr(),
            weight.scales.data_ptr(),
            None if bias is None else bias.data_ptr(),
            rows,
            weight.columns,
            weight.outputs,
            scratch.data_ptr(),
            scales.data_ptr(),
            out.data_ptr(),
        )
        return out

    def swiglu(self, both: torch.Tensor) -> torch.Tensor:
        """See `Kernels`."""
        rows, columns = both.shape[0], both.shape[1] // 2
        out = torch.empty((rows, columns))
        self._swiglu(both.data_ptr(), rows, columns, out.data_ptr())
        return out

    def rotate_and_store(
        self,
        qkv: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        slots: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        """See `Kernels`."""
        kv_heads = keys.shape[1]
        rows, all_heads, dim = qkv.shape
        cosine, sine = rotary
        self._rotate_and_store(
            qkv.data_ptr(),
            cosine.data_ptr(),
            sine.data_ptr(),
            slots.data_ptr(),
            rows,
            all_heads - 2 * kv_heads,
            kv_heads,
            dim,
            keys.dtype is torch.bfloat16,
            keys.data_ptr(),
            values.data_ptr(),
        )

    def attend(
        self,
        qkv: torch.Tensor,
        rows: QueryRows,
        keys: torch.Tensor,
        values: torch.Tensor,
        scaling: float,
        out: torch.Tensor,
    ) -> None:
        """See `Kernels`."""
        _, heads, dim = out.shape
        kv_heads = keys.shape[1]
        if dim > MAX_DIM or heads > kv_heads * MAX_TILE:
            raise AssertionError("the native attention was asked for more than it holds")
        self._attend(
            qkv.data_ptr(),
            qkv.shape[1] * dim,
            keys.data_ptr(),
            values.data_ptr(),
            keys.dtype is torch.bfloat16,
            rows.slots.data_ptr(),
            rows.offsets.data_ptr(),
            rows.lengths.data_ptr(),
            rows.tiles.data_ptr(),
            len(rows.tiles) - 1,
            heads,
            kv_heads,
            dim,
            scaling,
            out.data_ptr(),
        )

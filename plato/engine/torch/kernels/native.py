"""The compiled kernels behind the interface of `Kernels`."""

from __future__ import annotations

import ctypes

import torch

from plato.engine.torch.kernels.portable import QueryRows

MAX_DIM = 256
MAX_TILE = 16
"""Query heads that one task computes together."""

_POINTER = ctypes.c_void_p
_COUNT = ctypes.c_int64
_SIGNATURES = {
    "plato_rms_norm": [_POINTER, _POINTER, ctypes.c_float, _COUNT, _COUNT, _POINTER],
    "plato_quantize": [_POINTER, _COUNT, _COUNT, _POINTER, _POINTER],
    "plato_combine": [_POINTER, _POINTER, _POINTER, _COUNT, _COUNT, _POINTER],
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


class NativeKernels:
    """The kernels in C. Their arguments are contiguous tensors on the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = None
        self._rms_norm = library.plato_rms_norm
        self._quantize = library.plato_quantize
        self._combine = library.plato_combine
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

    def quantize(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Kernels`."""
        rows, columns = x.shape
        planes = torch.empty((2 * rows, columns), dtype=torch.uint8)
        scales = torch.empty(rows)
        self._quantize(x.data_ptr(), rows, columns, planes.data_ptr(), scales.data_ptr())
        return planes, scales

    def combine(
        self, products: torch.Tensor, scales: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """See `Kernels`."""
        rows, columns = len(scales), products.shape[1]
        out = torch.empty((rows, columns))
        self._combine(
            products.data_ptr(),
            scales.data_ptr(),
            None if bias is None else bias.data_ptr(),
            rows,
            columns,
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

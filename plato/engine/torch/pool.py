"""KV memory: one slot per token, in every layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from plato.engine.protocol import KVPiece
from plato.engine.torch.extents import FreeExtents
from plato.engine.torch.kernels.memory import huge_pages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class KVPool:
    """KV slots, allocated by number.

    `keys[layer]` and `values[layer]` have shape [capacity, KV heads, head dimension]. On a CPU,
    memory pages that were never written take no memory, so a large budget is cheap.
    """

    def __init__(
        self,
        *,
        layers: int,
        heads: int,
        head_dim: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (capacity, heads, head_dim)
        self.capacity = capacity
        tensors = _tensors(2 * layers, shape, dtype, device)
        self.keys, self.values = tensors[:layers], tensors[layers:]
        self._free = FreeExtents(capacity)

    @property
    def dtype(self) -> str:
        """Name of the element type."""
        return str(self.keys[0].dtype)

    @property
    def free_count(self) -> int:
        """Number of free slots."""
        return self._free.count

    def allocate(self, count: int, after: int | None = None) -> NDArray[np.int64]:
        """Allocate `count` slots, in few consecutive extents.

        Starts right after slot `after` if that is free. The caller ensures that enough are free.
        """
        if count > self._free.count:
            raise AssertionError(f"{count} KV slots requested, {self._free.count} free")
        return self._free.take(count, after)

    def free(self, slots: NDArray[np.int64]) -> None:
        """Free slots."""
        self._free.give(slots)

    def read(self, slots: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Keys and values of `slots`, each [layers, slots, KV heads, head dimension]."""
        index = torch.from_numpy(slots).to(self.keys[0].device)
        return _bits(self.keys, index), _bits(self.values, index)

    def fits(self, piece: KVPiece) -> bool:
        """Whether `piece` has the shape and type of this pool's KV."""
        shape = (len(self.keys), piece.stop - piece.start, *self.keys[0].shape[1:])
        width = self.keys[0].dtype.itemsize
        return piece.dtype == self.dtype and all(
            array.shape == shape and array.dtype.itemsize == width
            for array in (piece.keys, piece.values)
        )

    def write(self, slots: NDArray[np.int64], keys: NDArray[Any], values: NDArray[Any]) -> None:
        """Write what `read` has returned into `slots`."""
        index = torch.from_numpy(slots).to(self.keys[0].device)
        for tensors, arrays in ((self.keys, keys), (self.values, values)):
            for tensor, array in zip(tensors, arrays, strict=True):
                tensor[index] = torch.from_numpy(array).view(tensor.dtype).to(tensor.device)

    def free_slots(self) -> frozenset[int]:
        """The free slots, for integrity checks."""
        return frozenset(slot for start, end in self._free.extents() for slot in range(start, end))


def _tensors(
    count: int, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> list[torch.Tensor]:
    if device.type != "cpu":
        return [torch.empty(shape, dtype=dtype, device=device) for _ in range(count)]
    size = math.prod(shape) * dtype.itemsize
    # Attention reads a few hundred bytes at scattered addresses: with small pages, TLB misses
    # would dominate its time.
    memory = huge_pages(count * size)
    parts = memory.view(dtype).view(count, *shape)
    return list(parts.unbind())


def _bits(tensors: list[torch.Tensor], index: torch.Tensor) -> NDArray[Any]:
    """Rows of all layers in one array; bfloat16 as int16, because numpy does not support it."""
    rows = torch.stack([tensor[index] for tensor in tensors]).cpu()
    return rows.view(torch.int16).numpy() if rows.dtype is torch.bfloat16 else rows.numpy()


def bytes_per_token(layers: int, heads: int, head_dim: int, dtype: torch.dtype) -> int:
    """KV bytes of one token: keys and values in all layers."""
    return 2 * layers * heads * head_dim * dtype.itemsize

"""The memory that holds KV: one slot a token, in every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray


class KVPool:
    """Slots of KV, handed out by number.

    `keys[layer]` and `values[layer]` have shape [capacity, KV heads, head dimension]. Pages of
    memory that no token has touched yet cost nothing on a CPU, so a large budget is cheap.
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
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(layers)]
        # A stack of free slots: the ones freed last are used first.
        self._free: NDArray[np.int64] = np.arange(capacity - 1, -1, -1, dtype=np.int64)
        self._free_count = capacity

    @property
    def free_count(self) -> int:
        """Slots that nobody holds."""
        return self._free_count

    def allocate(self, count: int) -> NDArray[np.int64]:
        """Take `count` slots; the caller has made sure that there are as many."""
        if count > self._free_count:
            raise AssertionError(f"{count} KV slots asked, {self._free_count} free")
        self._free_count -= count
        return self._free[self._free_count : self._free_count + count][::-1].copy()

    def free(self, slots: NDArray[np.int64]) -> None:
        """Give slots back."""
        end = self._free_count + len(slots)
        if end > self.capacity:
            raise AssertionError("a KV slot was freed twice")
        self._free[self._free_count : end] = slots
        self._free_count = end

    def free_slots(self) -> frozenset[int]:
        """The free slots, for integrity checks."""
        return frozenset(self._free[: self._free_count].tolist())


def bytes_per_token(layers: int, heads: int, head_dim: int, dtype: torch.dtype) -> int:
    """Bytes of KV that one token takes: keys and values in all layers."""
    return 2 * layers * heads * head_dim * dtype.itemsize

"""Free slots as extents of consecutive numbers."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class FreeExtents:
    """The free numbers of [0, capacity), as extents [start, end).

    Attention reads the slots of a sequence in order, so they should be in few extents: an
    allocation continues right after the sequence's last slot if that is free, and else takes from
    the longest extent, which leaves room to grow. Every operation takes time proportional to the
    extents it touches, not to the capacity.
    """

    def __init__(self, capacity: int) -> None:
        self.count = capacity
        """Number of free numbers."""
        # Bounded by the free numbers; extents are never adjacent.
        self._ends: dict[int, int] = {0: capacity}
        self._starts: dict[int, int] = {capacity: 0}
        self._longest = [(-capacity, 0)]
        """Heap of (-length, start); an entry is void once its extent has changed."""
        self._is_free = np.ones(capacity, bool)

    def take(self, count: int, after: int | None = None) -> NDArray[np.int64]:
        """Take `count` numbers, starting right after `after` if that is free.

        At least `count` numbers must be free.
        """
        taken: list[NDArray[np.int64]] = []
        missing = count
        start = None if after is None else after + 1
        while missing:
            if start not in self._ends:
                start = self._longest_start()
            taken.append(self._cut(start, missing))
            missing -= len(taken[-1])
            start = None
        return np.concatenate(taken) if taken else np.empty(0, np.int64)

    def give(self, slots: NDArray[np.int64]) -> None:
        """Free numbers; none of them may be free already."""
        if not len(slots):
            return
        if self._is_free[slots].any():
            raise AssertionError("a KV slot was freed twice")
        self._is_free[slots] = True
        self.count += len(slots)
        breaks = np.flatnonzero(np.diff(slots) != 1) + 1
        starts = slots[np.concatenate(([0], breaks))].tolist()
        lasts = slots[np.concatenate((breaks, [len(slots)])) - 1].tolist()
        for start, last in zip(starts, lasts, strict=True):
            self._join(start, last + 1)

    def extents(self) -> list[tuple[int, int]]:
        """All extents as (start, end), ascending."""
        return sorted(self._ends.items())

    def _cut(self, start: int, count: int) -> NDArray[np.int64]:
        """Take up to `count` numbers from the extent at `start`."""
        end = self._ends.pop(start)
        stop = min(end, start + count)
        del self._starts[end]
        if stop < end:
            self._add(stop, end)
        self._is_free[start:stop] = False
        self.count -= stop - start
        return np.arange(start, stop, dtype=np.int64)

    def _join(self, start: int, end: int) -> None:
        """Add an extent, merged with adjacent ones."""
        if start in self._starts:
            start = self._starts.pop(start)
            del self._ends[start]
        if end in self._ends:
            end = self._ends.pop(end)
            del self._starts[end]
        self._add(start, end)

    def _add(self, start: int, end: int) -> None:
        self._ends[start] = end
        self._starts[end] = start
        heapq.heappush(self._longest, (start - end, start))
        if len(self._longest) > 2 * len(self._ends) + 64:
            self._longest = [(start - end, start) for start, end in self._ends.items()]
            heapq.heapify(self._longest)

    def _longest_start(self) -> int:
        while True:
            length, start = self._longest[0]
            if self._ends.get(start) == start - length:
                return start
            heapq.heappop(self._longest)

"""Slots: every one handed out once, in few runs of consecutive ones."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plato.engine.torch.extents import FreeExtents
from plato.engine.torch.pool import KVPool


def new_pool(capacity: int = 10) -> KVPool:
    return KVPool(
        layers=1,
        heads=1,
        head_dim=2,
        capacity=capacity,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )


def test_hands_out_every_slot_once() -> None:
    pool = new_pool()
    slots = np.concatenate([pool.allocate(4), pool.allocate(6)])
    assert sorted(slots.tolist()) == list(range(10))
    assert pool.free_count == 0
    pool.free(slots[2:5])
    assert pool.free_slots() == frozenset(slots[2:5].tolist())


def test_refuses_more_than_there_is_in_either_direction() -> None:
    pool = new_pool()
    with pytest.raises(AssertionError, match="11 KV slots requested, 10 free"):
        pool.allocate(11)
    with pytest.raises(AssertionError, match="freed twice"):
        pool.free(np.array([0]))


def test_a_sequence_that_grows_goes_on_right_behind_its_last_slot() -> None:
    pool = new_pool(100)
    first = pool.allocate(4)
    assert pool.allocate(4, after=int(first[-1])).tolist() == [4, 5, 6, 7]
    pool.allocate(4)
    assert pool.allocate(4, after=7).tolist() == [12, 13, 14, 15], "the longest run there is"


def test_takes_the_longest_run_and_pieces_only_when_it_must() -> None:
    pool = new_pool(20)
    pool.allocate(20)
    pool.free(np.array([1, 2, 3, 9, 10, 11, 12, 13, 17]))
    assert pool.allocate(4).tolist() == [9, 10, 11, 12]
    assert pool.allocate(5).tolist() == [1, 2, 3, 13, 17]


def test_what_is_freed_in_pieces_becomes_one_run_again() -> None:
    pool = new_pool(12)
    slots = pool.allocate(12)
    for start in (0, 6, 3, 9):
        pool.free(slots[start : start + 3])
    assert pool.allocate(12).tolist() == list(range(12))


@given(
    operations=st.lists(
        st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(0, 39)), st.booleans()),
        max_size=60,
    ),
    order=st.randoms(use_true_random=False),
)
def test_random_takes_and_gives_lose_nothing(
    operations: list[tuple[int, int | None, bool]], order: object
) -> None:
    extents = FreeExtents(40)
    taken: list[int] = []
    for count, after, give in operations:
        if give:
            order.shuffle(taken)  # type: ignore[attr-defined]
            extents.give(np.array(taken[:count], np.int64))
            del taken[:count]
        else:
            new = extents.take(min(count, extents.count), after).tolist()
            assert not set(new) & set(taken)
            taken += new
        runs = extents.extents()
        free = {slot for start, end in runs for slot in range(start, end)}
        assert extents.count == len(free) == 40 - len(taken)
        assert free.isdisjoint(taken)
        assert all(end < start for (_, end), (start, _) in pairwise(runs))

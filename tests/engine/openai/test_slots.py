"""Places at a server are given in order, and never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from plato.engine import EngineBusyError
from plato.engine.openai.slots import Slots


class Holders:
    """Tasks that hold places until they are told to leave."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.order: list[str] = []
        self.leave = asyncio.Event()

    def start(self, ranks: Iterable[tuple[str, int]]) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._hold(name, rank)) for name, rank in ranks]

    async def _hold(self, name: str, rank: int) -> None:
        async with self._slots.place(rank):
            self.order.append(name)
            await self.leave.wait()


async def test_the_lowest_rank_is_next_and_among_equals_the_first() -> None:
    holders = Holders(slots := Slots(1, 10))
    ranks = {"first": 9, "late": 2, "urgent": 0, "a": 1, "b": 1}
    tasks = holders.start(ranks.items())
    await asyncio.sleep(0.01)
    assert (slots.running, slots.waiting) == (1, 4)
    holders.leave.set()
    await asyncio.gather(*tasks)
    assert holders.order == ["first", "urgent", "a", "b", "late"]
    assert (slots.running, slots.waiting) == (0, 0)


async def test_the_queue_is_bounded() -> None:
    holders = Holders(slots := Slots(1, 1))
    tasks = holders.start([("running", 0), ("waiting", 0)])
    await asyncio.sleep(0.01)
    with pytest.raises(EngineBusyError, match="1 sequences are waiting"):
        async with slots.place(0):
            pass
    holders.leave.set()
    await asyncio.gather(*tasks)


async def test_whoever_gives_up_leaves_its_place_to_the_next() -> None:
    holders = Holders(slots := Slots(1, 10))
    first, second, third = holders.start([(name, 0) for name in "abc"])
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.sleep(0.01)
    assert slots.waiting == 1
    # Its turn comes and it gives up at the same moment.
    first.cancel()
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    async with asyncio.timeout(1), slots.place(0):
        assert (slots.running, slots.waiting) == (1, 0)


async def test_a_whole_run_that_is_cancelled_leaves_its_places() -> None:
    holders = Holders(slots := Slots(1, 10))
    tasks = holders.start([(name, 0) for name in "abc"])
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 3
    async with asyncio.timeout(1), slots.place(0):
        assert (slots.running, slots.waiting) == (1, 0)

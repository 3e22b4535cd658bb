"""Places at a server are given in order, and never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from plato.engine import EngineBusyError
from plato.engine.openai.slots import Rank, Slots


class Holders:
    """Tasks that hold places until they are told to leave."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.order: list[str] = []
        self.leave = asyncio.Event()

    def start(self, ranks: Iterable[tuple[str, Rank]]) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._hold(name, rank)) for name, rank in ranks]

    async def _hold(self, name: str, rank: Rank) -> None:
        async with self._slots.place(rank):
            self.order.append(name)
            await self.leave.wait()


async def test_the_lowest_rank_is_next_and_among_equals_the_first() -> None:
    holders = Holders(slots := Slots(1, 10))
    ranks = {"first": (9.0, 0), "late": (2.0, 0), "urgent": (1.0, -5), "a": (1.0, 0), "b": (1.0, 0)}
    tasks = holders.start(ranks.items())
    await asyncio.sleep(0.01)
    assert (slots.running, slots.waiting) == (1, 4)
    holders.leave.set()
    await asyncio.gather(*tasks)
    assert holders.order == ["first", "urgent", "a", "b", "late"]
    assert (slots.running, slots.waiting) == (0, 0)


async def test_the_queue_is_bounded() -> None:
    holders = Holders(slots := Slots(1, 1))
    tasks = holders.start([("running", (0.0, 0)), ("waiting", (0.0, 0))])
    await asyncio.sleep(0.01)
    with pytest.raises(EngineBusyError, match="1 sequences are waiting"):
        async with slots.place((0.0, 0)):
            pass
    holders.leave.set()
    await asyncio.gather(*tasks)


async def test_whoever_gives_up_leaves_its_place_to_the_next() -> None:
    holders = Holders(slots := Slots(1, 10))
    first, second, third = holders.start([(name, (0.0, 0)) for name in "abc"])
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.sleep(0.01)
    assert slots.waiting == 1
    # Its turn comes and it gives up at the same moment.
    first.cancel()
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    async with asyncio.timeout(1), slots.place((0.0, 0)):
        assert (slots.running, slots.waiting) == (1, 0)

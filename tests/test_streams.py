"""Silence tells; a slow consumer does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from plato.errors import UnavailableError
from plato.streams import Attended, SilenceError, beating, listening

BEAT_S = 0.02


class Source:
    """Numbers, one for each time it is let go on; notes how it ends."""

    def __init__(self) -> None:
        self.more = asyncio.Semaphore(0)
        self.closed = False
        self.error: Exception | None = None

    async def items(self) -> AsyncGenerator[int]:
        number = 0
        try:
            while True:
                await self.more.acquire()
                if self.error is not None:
                    raise self.error
                yield number
                number += 1
                if number == 3:
                    return
        finally:
            self.closed = True


async def test_a_beating_stream_has_the_items_in_order_and_ends() -> None:
    source = Source()
    for _ in range(3):
        source.more.release()
    assert [item async for item in beating(source.items(), 5.0)] == [0, 1, 2]
    assert source.closed


async def test_it_says_that_it_lives_while_nothing_comes_and_loses_no_item() -> None:
    source = Source()
    seen = []
    async with aclosing(beating(source.items(), BEAT_S)) as beats:
        async for item in beats:
            seen.append(item)
            if item is None and seen.count(None) % 3 == 0:
                source.more.release()
    assert [item for item in seen if item is not None] == [0, 1, 2]
    assert seen.count(None) >= 9
    assert source.closed


async def test_closing_it_in_mid_wait_closes_the_source() -> None:
    source = Source()
    async with aclosing(beating(source.items(), BEAT_S)) as beats:
        assert await anext(beats) is None
    assert source.closed


async def test_what_the_source_raises_goes_through() -> None:
    source = Source()
    source.error = ValueError("broken")
    source.more.release()
    with pytest.raises(ValueError, match="broken"):
        async for _ in beating(source.items(), 5.0):
            pass


async def test_a_listener_gives_up_on_silence_and_closes_what_it_listens_to() -> None:
    source = Source()
    source.more.release()
    heard = []

    async def listen() -> None:
        async for item in listening(source.items(), 0.1):
            heard.append(item)  # noqa: PERF401 - it raises in the middle

    with pytest.raises(UnavailableError, match="silent"):
        await listen()
    assert heard == [0]
    assert source.closed


async def test_signs_of_life_keep_a_listener() -> None:
    source = Source()

    async def let_go() -> None:
        for _ in range(3):
            await asyncio.sleep(0.2)
            source.more.release()

    going = asyncio.create_task(let_go())
    heard = [item async for item in listening(beating(source.items(), BEAT_S), 0.15)]
    assert heard == [0, 1, 2]
    await going


async def test_the_time_that_the_consumer_takes_is_not_silence() -> None:
    source = Source()
    for _ in range(3):
        source.more.release()
    heard = []
    async for item in listening(source.items(), 0.05):
        heard.append(item)
        await asyncio.sleep(0.1)
    assert heard == [0, 1, 2]


async def test_a_stream_can_be_given_up_on_while_nothing_comes() -> None:
    source = Source()
    attended = Attended(source.items())
    waiting = asyncio.create_task(anext(aiter(attended)))
    await asyncio.sleep(0.02)
    attended.give_up()
    with pytest.raises(SilenceError):
        await waiting


async def test_what_is_done_with_an_item_is_never_interrupted() -> None:
    source = Source()
    source.more.release()
    source.more.release()
    attended = Attended(source.items())
    done = []

    async def consume() -> None:
        async for item in attended:
            attended.give_up()
            await asyncio.sleep(0.02)
            done.append(item)

    with pytest.raises(SilenceError):
        await consume()
    assert done == [0]


async def test_waiting_ends_at_its_time() -> None:
    source = Source()
    attended = Attended(source.items(), until=asyncio.get_running_loop().time() + 0.05)
    with pytest.raises(TimeoutError):
        await anext(aiter(attended))

"""A background task ends, also one that has lost its cancellation."""

from __future__ import annotations

import asyncio

from plato.tasks import end_task, repeat


async def test_a_task_that_swallows_a_cancellation_ends_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 2:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_task(task)
    assert task.done()
    assert swallowed == 2


async def test_a_task_that_has_failed_has_ended() -> None:
    async def broken() -> None:
        raise ValueError

    task = asyncio.create_task(broken())
    await asyncio.wait([task])
    await end_task(task)
    assert isinstance(task.exception(), ValueError)


async def test_a_check_is_repeated_whatever_it_raises() -> None:
    calls = 0
    enough = asyncio.Event()

    async def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            enough.set()
        raise ValueError

    task = asyncio.create_task(repeat(0.001, check))
    async with asyncio.timeout(30):
        await enough.wait()
    await end_task(task)

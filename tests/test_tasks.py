"""Tasks that end, also one that has lost its cancellation, and waits that are interrupted."""

from __future__ import annotations

import asyncio

import pytest

from plato.tasks import Interruption, end_task, repeat


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


class Cut(Exception):  # noqa: N818 - a stand-in
    pass


async def wait_in(interruption: Interruption) -> None:
    with interruption:
        await asyncio.sleep(60)


async def wait_twice(interruption: Interruption) -> None:
    for _ in range(2):
        with pytest.raises(Cut, match="first"):
            await wait_in(interruption)


async def test_an_interruption_ends_a_wait_and_those_that_follow() -> None:
    interruption = Interruption()
    task = asyncio.create_task(wait_twice(interruption))
    await asyncio.sleep(0)
    interruption.interrupt(Cut("first"))
    interruption.interrupt(Cut("second"))
    async with asyncio.timeout(5):
        await task
    assert not task.cancelling()


async def test_an_interruption_between_waits_ends_the_next_one() -> None:
    interruption = Interruption()
    with interruption:
        await asyncio.sleep(0)
    interruption.interrupt(Cut("late"))
    await asyncio.sleep(0)
    with pytest.raises(Cut), interruption:
        raise AssertionError("the wait has begun")


async def test_the_waits_of_one_interruption_can_be_in_several_tasks() -> None:
    interruption = Interruption()
    with interruption:
        await asyncio.sleep(0)
    task = asyncio.create_task(wait_in(interruption))
    await asyncio.sleep(0)
    interruption.interrupt(Cut())
    with pytest.raises(Cut):
        await task


async def test_a_task_that_is_cancelled_as_it_is_interrupted_is_cancelled() -> None:
    interruption = Interruption()
    task = asyncio.create_task(wait_in(interruption))
    await asyncio.sleep(0)
    interruption.interrupt(Cut())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_another_error_is_not_replaced() -> None:
    interruption = Interruption()

    async def fail() -> None:
        with interruption:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError as error:
                raise ValueError from error

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    interruption.interrupt(Cut())
    with pytest.raises(ValueError):  # noqa: PT011 - its own
        await task

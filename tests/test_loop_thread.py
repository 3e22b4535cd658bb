"""Work in an event loop of another thread, as if it were a call."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import AsyncGenerator, Iterator

import pytest

from plato.loop_thread import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    opened = LoopThread("test")
    yield opened
    opened.end()
    opened.end()


class Counting:
    """Numbers, and whether they were closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    async def numbers(self, most: int) -> AsyncGenerator[int]:
        try:
            for number in range(most):
                yield number
            await asyncio.sleep(60)
        finally:
            # As clients do that tell a server.
            await asyncio.sleep(0.01)
            self.closed.set()


async def fail() -> None:
    raise ValueError("wrong")


def test_results_and_errors_come_back(loop: LoopThread) -> None:
    assert loop.run(asyncio.sleep(0, 5)) == 5
    with pytest.raises(ValueError, match="wrong"):
        loop.run(fail())


def test_leaving_an_iteration_closes_it(loop: LoopThread) -> None:
    counting = Counting()
    for number in loop.iterate(counting.numbers(3)):
        if number == 1:
            break
    assert counting.closed.is_set()


def test_an_interrupt_ends_what_is_waited_for(loop: LoopThread) -> None:
    counting = Counting()
    # In the background of a shell, interrupts are ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            list(loop.iterate(counting.numbers(3)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert counting.closed.is_set()


def test_the_garbage_collector_of_any_thread_may_close_an_iteration(loop: LoopThread) -> None:
    counting = Counting()
    left = [loop.iterate(counting.numbers(3))]
    next(left[0])

    async def collect() -> None:
        left.clear()
        gc.collect()

    loop.run(collect())
    assert counting.closed.wait(5)


def test_what_has_ended_runs_nothing(loop: LoopThread) -> None:
    counting = Counting()
    loop.end()
    with pytest.raises(RuntimeError, match="test is closed"):
        loop.run(asyncio.sleep(0))
    with pytest.raises(RuntimeError, match="test is closed"):
        next(loop.iterate(counting.numbers(1)))

"""Streams of handle calls: cancelled when they are left, given up when they fall silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from deployments import handles
from deployments.handles import ServeDecoderPool, stream
from plato.engine import EngineClosedError
from plato.errors import OverloadedError, UnavailableError
from plato.patience import Patience
from tests.deployments.calls import Response

SILENCE_S = 0.1


async def numbers(*pauses_s: float) -> AsyncGenerator[int | None]:
    """1, 2, 3, ... each after a pause, with a heartbeat before it."""
    for number, pause_s in enumerate(pauses_s, start=1):
        yield None
        await asyncio.sleep(pause_s)
        yield number


async def test_the_items_come_without_the_heartbeats() -> None:
    response = Response(numbers(0, 0, 0))
    assert [item async for item in stream(lambda: response)] == [1, 2, 3]
    assert not response.cancelled


async def test_leaving_a_stream_cancels_its_call() -> None:
    response = Response(numbers(0, 0))
    async with aclosing(stream(lambda: response)) as items:
        assert await anext(items) == 1
    assert response.cancelled


async def test_after_the_last_item_there_is_nothing_to_cancel() -> None:
    response = Response(numbers(0, 0))
    async with aclosing(stream(lambda: response, is_last=lambda item: item == 2)) as items:
        assert [await anext(items), await anext(items)] == [1, 2]
    assert not response.cancelled


async def test_silence_ends_a_stream() -> None:
    response = Response(numbers(0, 5))
    received = []

    async def receive() -> None:
        async for item in stream(lambda: response, patience=Patience(SILENCE_S)):
            received.append(item)  # noqa: PERF401 - it raises in the middle

    with pytest.raises(UnavailableError, match=r"no heartbeat from the other process for 0\.1 s"):
        await receive()
    assert received == [1]


async def test_heartbeats_keep_a_stream() -> None:
    async def slow() -> AsyncGenerator[int | None]:
        for _ in range(6):
            await asyncio.sleep(SILENCE_S / 2)
            yield None
        yield 1

    response = Response(slow())
    assert [item async for item in stream(lambda: response, patience=Patience(SILENCE_S))] == [1]


async def test_the_time_that_the_consumer_takes_is_not_silence() -> None:
    response, received = Response(numbers(0, 0)), []
    async for item in stream(lambda: response, patience=Patience(SILENCE_S)):
        received.append(item)
        await asyncio.sleep(1.5 * SILENCE_S)
    assert received == [1, 2]


@pytest.mark.parametrize("cause", [OverloadedError("full"), TimeoutError("late")])
async def test_what_was_raised_in_the_other_process_is_raised_here(cause: Exception) -> None:
    async def failing() -> AsyncGenerator[int]:
        yield 1
        raise RayTaskError("generate", "a traceback", cause).as_instanceof_cause()

    response = Response(failing())
    items = stream(lambda: response, patience=Patience(SILENCE_S))
    assert await anext(items) == 1
    with pytest.raises(type(cause)) as raised:
        await anext(items)
    assert raised.value is cause
    assert response.cancelled


async def test_a_stream_is_not_given_up_because_its_reader_was_late() -> None:
    async def late() -> AsyncGenerator[int]:
        yield 1
        await asyncio.sleep(0.2)
        yield 2

    response, received = Response(late()), []
    async for item in stream(lambda: response, patience=Patience(0.4)):
        received.append(item)
        asyncio.get_running_loop().call_soon(time.sleep, 1.0)
    assert received == [1, 2]


async def test_a_call_that_was_silent_is_cancelled_at_once_or_later() -> None:
    response = Response(numbers(5))
    with pytest.raises(UnavailableError):
        await anext(stream(lambda: response, patience=Patience(SILENCE_S)))
    assert response.cancelled
    response = Response(numbers(5))
    with pytest.raises(UnavailableError):
        await anext(stream(lambda: response, patience=Patience(SILENCE_S), abandoned_s=0.3))
    # Its process may only be late, and somebody may join the same work there in between.
    assert not response.cancelled
    await asyncio.sleep(0.4)
    assert response.cancelled


@pytest.mark.parametrize(
    ("cause", "health", "reason"),
    [
        (EngineClosedError("it has another model"), "failed", "it has another model"),
        (None, "away", "TimeoutError"),
    ],
)
async def test_a_decoder_that_has_failed_or_is_silent_is_known(
    monkeypatch: pytest.MonkeyPatch, cause: Exception | None, health: str, reason: str
) -> None:
    monkeypatch.setattr(handles, "STATUS_DEADLINE_S", 0.05)

    async def stats(*, replica: str) -> None:
        assert replica == "r1"
        if cause is None:
            await asyncio.sleep(30)
        raise RayTaskError("stats", "a traceback", cause).as_instanceof_cause()

    handle: Any = SimpleNamespace(stats=SimpleNamespace(remote=stats))
    handle.options = lambda **_: handle
    status = await ServeDecoderPool(handle).status("r1")
    assert (status.name, status.health, status.reason) == ("r1", health, reason)

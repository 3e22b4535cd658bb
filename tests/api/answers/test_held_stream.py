"""The deadline of writes: for clients that read nothing, and not for answers that are silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any

from plato.api.answers.held_stream import HeldStream

DEADLINE_S = 0.1
SCOPE = {"type": "http", "method": "GET"}


async def never() -> Any:
    await asyncio.sleep(60)


async def test_an_answer_can_be_silent_for_longer_than_the_deadline() -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        for piece in (b"a", b"b"):
            yield piece
            await asyncio.sleep(3 * DEADLINE_S)

    sent = []

    async def send(message: Any) -> None:
        sent.append(message.get("body"))

    async with asyncio.timeout(10):
        await HeldStream(pieces(), ExitStack(), DEADLINE_S)(SCOPE, never, send)
    assert sent == [None, b"a", b"b", b""]


async def test_a_client_that_reads_nothing_ends_the_answer_after_the_deadline() -> None:
    ended, slot = asyncio.Event(), ExitStack()
    freed = asyncio.Event()
    slot.callback(freed.set)

    async def pieces() -> AsyncGenerator[bytes]:
        try:
            await asyncio.sleep(2 * DEADLINE_S)
            while True:
                yield b"a"
        finally:
            ended.set()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await never()

    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.timeout(10):
        await HeldStream(pieces(), slot, DEADLINE_S)(SCOPE, never, send)
    assert loop.time() - began > 2.9 * DEADLINE_S
    assert ended.is_set()
    assert freed.is_set()

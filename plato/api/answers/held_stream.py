"""Streamed responses that hold a slot, and end with their clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing, closing, suppress
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from plato.api.answers.disconnect import until_client_leaves
from plato.tasks import Interruption


class BrokenOffError(Exception):
    """The rest of a body will not come; whose error it is, is told already."""


class HeldStream(StreamingResponse):
    """A response whose body is written while it comes into being."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes],
        slot: AbstractContextManager[object],
        write_deadline_s: float,
        **response: Any,
    ) -> None:
        """Closes `pieces` and gives `slot` back at the end; `response` is Starlette's.

        A client that reads nothing for `write_deadline_s` has left. If `pieces` raise
        `BrokenOffError`, the connection is closed, so that nobody takes the body for complete.
        """
        super().__init__(pieces, **response)
        self._pieces = pieces
        self._slot = slot
        self._write_deadline_s = write_deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces until their end, or until the client leaves: not an error of ours."""
        with (
            self._slot,
            suppress(ClientDisconnect, BrokenOffError),
            closing(_Writer(send, self._write_deadline_s)) as writer,
        ):
            async with aclosing(self._pieces):
                if scope["method"] == "HEAD":
                    # Its client gets no piece, and would wait for the last one.
                    await self._pieces.aclose()
                await super().__call__(scope, receive, writer.send)

    async def listen_for_disconnect(self, receive: Receive) -> None:
        """Called by Starlette, which ends the stream when this returns."""
        await until_client_leaves(receive)


class _Writer:
    """Sends messages, each within a time, of which one timer takes care for all of them."""

    def __init__(self, send: Send, deadline_s: float) -> None:
        self._send = send
        self._deadline_s = deadline_s
        self._loop = asyncio.get_running_loop()
        self._wait = Interruption()
        self._began: float | None = None
        """When the message that is being sent was passed on."""
        self._timer = self._loop.call_later(deadline_s, self._check)

    async def send(self, message: Message) -> None:
        """Raises `ClientDisconnect` if it takes longer than the deadline."""
        self._began = self._loop.time()
        with self._wait:
            await self._send(message)
        self._began = None

    def close(self) -> None:
        self._timer.cancel()

    def _check(self) -> None:
        taken_s = 0.0 if self._began is None else self._loop.time() - self._began
        if taken_s >= self._deadline_s:
            self._wait.interrupt(ClientDisconnect())
        else:
            self._timer = self._loop.call_later(self._deadline_s - taken_s, self._check)

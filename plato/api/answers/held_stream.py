"""Streamed responses that hold a slot, and end with their clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing, suppress
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from plato.api.answers.disconnect import until_client_leaves


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

        A client that reads nothing for `write_deadline_s` has left.
        """
        super().__init__(pieces, **response)
        self._pieces = pieces
        self._slot = slot
        self._write_deadline_s = write_deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces until their end, or until the client leaves: not an error of ours."""

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._write_deadline_s):
                    await send(message)
            except TimeoutError as error:
                raise ClientDisconnect from error

        with self._slot, suppress(ClientDisconnect):
            async with aclosing(self._pieces):
                await super().__call__(scope, receive, send_in_time)

    async def listen_for_disconnect(self, receive: Receive) -> None:
        """Called by Starlette, which ends the stream when this returns."""
        await until_client_leaves(receive)

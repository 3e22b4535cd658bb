"""Server-sent events (WHATWG HTML, section 9.2), as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing, suppress

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from plato.api.answers.disconnect import until_client_leaves

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Keep proxies from holding a stream back."""
END = "[DONE]"
DONE = f"data: {END}\n\n".encode()
"""Ends a successful stream of chat completion chunks."""
PING = b": ping\n\n"
"""A comment; keeps proxies from closing an idle stream."""
PING_S = 10.0
"""How long a stream is silent before a ping."""


class EventStream(StreamingResponse):
    """A response of server-sent events."""

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        slot: AbstractContextManager[object],
        write_deadline_s: float,
    ) -> None:
        """Closes `events` and gives `slot` back at the end.

        A client that reads nothing for `write_deadline_s` has left.
        """
        super().__init__(events, media_type=MEDIA_TYPE, headers=HEADERS)
        self._events = events
        self._slot = slot
        self._write_deadline_s = write_deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until their end, or until the client leaves: not an error of ours."""

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._write_deadline_s):
                    await send(message)
            except TimeoutError as error:
                raise ClientDisconnect from error

        with self._slot, suppress(ClientDisconnect):
            async with aclosing(self._events):
                await super().__call__(scope, receive, send_in_time)

    async def listen_for_disconnect(self, receive: Receive) -> None:
        """Called by Starlette, which ends the stream when this returns."""
        await until_client_leaves(receive)


def event(data: str, *, name: str | None = None, id: str | None = None) -> bytes:  # noqa: A002
    r"""One event with `data`, of any number of lines (`\n`); `name` is the type of the event."""
    head = "".join(f"{key}: {value}\n" for key, value in (("id", id), ("event", name)) if value)
    lines = data.split("\n")
    return (head + "".join(f"data: {line}\n" for line in lines) + "\n").encode()

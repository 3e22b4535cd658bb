"""Server-sent events (WHATWG HTML, section 9.2), as bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from plato.api.disconnect import until_client_leaves

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Keep proxies from holding a stream back."""
DONE = b"data: [DONE]\n\n"
"""Ends a successful stream of chat completion chunks."""
PING = b": ping\n\n"
"""A comment; keeps proxies from closing an idle stream."""
PING_S = 10.0
"""How long a stream is silent before a ping."""


class EventStream(StreamingResponse):
    """A response of server-sent events."""

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        """Closes `events` when the client disconnects."""
        super().__init__(events, media_type=MEDIA_TYPE, headers=HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until their end, or until the client leaves: not an error of ours."""
        with suppress(ClientDisconnect):
            await super().__call__(scope, receive, send)

    async def listen_for_disconnect(self, receive: Receive) -> None:
        """Called by Starlette, which ends the stream when this returns."""
        await until_client_leaves(receive)


def event(data: str, *, name: str | None = None, id: str | None = None) -> bytes:  # noqa: A002
    r"""One event with `data`, of any number of lines (`\n`); `name` is the type of the event."""
    head = "".join(f"{key}: {value}\n" for key, value in (("id", id), ("event", name)) if value)
    lines = data.split("\n")
    return (head + "".join(f"data: {line}\n" for line in lines) + "\n").encode()

"""Server-sent events (WHATWG HTML, section 9.2), as bytes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager

from plato.api.answers.held_stream import HeldStream

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


class EventStream(HeldStream):
    """A response of server-sent events."""

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        slot: AbstractContextManager[object],
        write_deadline_s: float,
    ) -> None:
        """See `HeldStream`."""
        super().__init__(events, slot, write_deadline_s, media_type=MEDIA_TYPE, headers=HEADERS)


def event(data: str, *, name: str | None = None, id: str | None = None) -> bytes:  # noqa: A002
    r"""One event with `data`, of any number of lines (`\n`); `name` is the type of the event."""
    head = "".join(f"{key}: {value}\n" for key, value in (("id", id), ("event", name)) if value)
    lines = data.split("\n")
    return (head + "".join(f"data: {line}\n" for line in lines) + "\n").encode()

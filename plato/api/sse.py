"""Server-sent events (WHATWG HTML, section 9.2), as bytes."""

from __future__ import annotations

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Keep proxies from holding a stream back."""
DONE = b"data: [DONE]\n\n"
"""Ends a successful stream of chat completion chunks."""
PING = b": ping\n\n"
"""A comment; keeps proxies from closing an idle stream."""


def event(data: str, *, name: str | None = None, id: str | None = None) -> bytes:  # noqa: A002
    r"""One event with `data`, of any number of lines (`\n`); `name` is the type of the event."""
    head = "".join(f"{key}: {value}\n" for key, value in (("id", id), ("event", name)) if value)
    lines = data.split("\n")
    return (head + "".join(f"data: {line}\n" for line in lines) + "\n").encode()

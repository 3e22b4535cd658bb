"""Server-sent events (WHATWG HTML, section 9.2), as bytes."""

from __future__ import annotations

MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Keep proxies from holding a stream back."""
DONE = b"data: [DONE]\n\n"
"""Ends a stream of chat completion chunks that went well."""
PING = b": ping\n\n"
"""A comment; keeps proxies from closing a stream in which nothing happens."""


def event(data: str, *, name: str | None = None, id: str | None = None) -> bytes:  # noqa: A002
    r"""One event with `data`, which may have several lines (ended by `\n`).

    `name` is its type, and `id` what a client sends as Last-Event-ID to go on behind it.
    """
    head = "".join(f"{key}: {value}\n" for key, value in (("id", id), ("event", name)) if value)
    lines = data.split("\n")
    return (head + "".join(f"data: {line}\n" for line in lines) + "\n").encode()

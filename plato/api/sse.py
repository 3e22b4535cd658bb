"""Server-sent events (WHATWG HTML, section 9.2), as bytes."""

from __future__ import annotations

MEDIA_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"
"""Ends a stream of chat completion chunks that went well."""
PING = b": ping\n\n"
"""A comment; keeps proxies from closing a stream in which nothing happens."""


def event(data: str) -> bytes:
    r"""One event with `data`, which may have several lines (ended by `\n`)."""
    lines = data.split("\n")
    return "".join(f"data: {line}\n" for line in lines).encode() + b"\n"

"""Server-sent events, from bytes that arrive in pieces."""

from __future__ import annotations

MAX_EVENT_BYTES = 8 << 20
"""Limit of one line and of the data of one event; some repeat the prompt's token ids."""
_FIELDS = frozenset({"data", "event", "id", "retry"})


class EventStreamError(ValueError):
    """What arrives is no stream of server-sent events, or one without bounds."""


class EventParser:
    """Finds the data of server-sent events (WHATWG HTML, section 9.2, "Server-sent events").

    The standard ignores fields that it does not know. Here they are an error: what follows is
    certainly no event stream, but the page of a proxy, say.
    """

    def __init__(self) -> None:
        self._rest = b""
        """The beginning of a line; at most `MAX_EVENT_BYTES`."""
        self._data: list[str] = []
        self._size = 0
        """Of `_data`; at most `MAX_EVENT_BYTES`."""

    @property
    def within_event(self) -> bool:
        """Whether an event has begun and not ended."""
        return bool(self._rest or self._data)

    def feed(self, piece: bytes) -> list[str]:
        """The data of the events that end in `piece`. Raises `EventStreamError`."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventStreamError(f"a line of the answer is longer than {MAX_EVENT_BYTES} bytes")
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> str | None:
        """Take in a line; returns the data of an event that it ends."""
        try:
            text = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            raise _no_events(line) from error
        if not text:
            event, self._data, self._size = "\n".join(self._data), [], 0
            return event or None
        name, _, value = text.partition(":")
        if name == "data":
            self._size += len(line)
            if self._size > MAX_EVENT_BYTES:
                raise EventStreamError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
            self._data.append(value.removeprefix(" "))
        elif name and name not in _FIELDS:
            raise _no_events(line)
        return None


def _no_events(line: bytes) -> EventStreamError:
    return EventStreamError(f"the answer is no stream of server-sent events: {line[:100]!r}")

"""Streams of events that pass by."""

from __future__ import annotations

MAX_HELD = 64 << 10
"""Bytes of an event that are held back until it is complete."""
_ENDS = (b"\n\n", b"\r\n\r\n")


class WholeEvents:
    """Passes events on when they are complete: an upstream can break off within one."""

    def __init__(self) -> None:
        self.held = b""
        """The beginning of an event; at most `MAX_HELD` bytes."""
        self.within = False
        """Whether the beginning of a longer event has been passed on."""

    def feed(self, piece: bytes) -> bytes:
        """What can be passed on after the next piece of the stream."""
        data = self.held + piece
        ends = (data.rfind(end) + len(end) for end in _ENDS if end in data)
        cut = max(ends, default=0)
        self.within = self.within and not cut
        if len(data) - cut > MAX_HELD:
            self.within, cut = True, len(data)
        self.held = data[cut:]
        return data[:cut]

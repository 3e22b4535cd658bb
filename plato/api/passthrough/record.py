"""What is measured of an answer that passes by."""

from __future__ import annotations

import re
import time

from plato.metrics import Metric, Recorder
from plato.metrics.table import ANSWER_SECONDS, FIRST_TEXT_SECONDS, PASSED_ON
from plato.runs import Mode

MAX_TAIL_BYTES = 4096
"""Usage is at the end of an answer, or in the last event of a stream."""
REFUSED = 400
"""Statuses from here on are no answers."""
_TOTAL = re.compile(rb'"total_tokens"\s*:\s*([0-9]{1,12})')


class PassRecord:
    """Times one answer from its construction, and counts its tokens; in constant memory."""

    def __init__(self, recorder: Recorder, *, decodes: bool) -> None:
        """`decodes`: whether the answer is text, whose speed clients see."""
        self._recorder = recorder
        self._decodes = decodes
        self._asked = time.monotonic()
        self._status: int | None = None
        self._tail = b""
        self._events = 0
        self.outcome = "cancelled"
        """`answered`, `refused` (by the upstream), `failed`, or `cancelled` (the client left)."""

    @property
    def tokens(self) -> int:
        """As the upstream counts them; of a stream without usage, the number of its events."""
        totals = _TOTAL.findall(self._tail)
        return int(totals[-1]) if totals else self._events

    def begin(self, status: int) -> None:
        """The response has this status."""
        self._status = status

    def feed(self, piece: bytes) -> None:
        """A piece of its body."""
        if not self._tail:
            self._observe(FIRST_TEXT_SECONDS)
        self._tail = (self._tail + piece)[-MAX_TAIL_BYTES:]
        self._events += piece.count(b"data:")

    def complete(self) -> None:
        """The upstream has sent all of it."""
        self.outcome = "answered" if self._succeeded else "refused"
        self._observe(ANSWER_SECONDS)

    def close(self) -> None:
        """Count it by its outcome."""
        self._recorder.add(PASSED_ON, outcome=self.outcome)

    @property
    def _succeeded(self) -> bool:
        return self._status is not None and self._status < REFUSED

    def _observe(self, metric: Metric) -> None:
        if self._decodes and self._succeeded:
            self._recorder.observe(metric, time.monotonic() - self._asked, mode=Mode.SEQUENTIAL)

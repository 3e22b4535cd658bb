"""What is measured of an answer that passes by."""

from __future__ import annotations

import re
import time

from plato.api.passthrough.outgoing import Passed
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

    def __init__(self, recorder: Recorder, passed: Passed) -> None:
        """Of the answer to `passed`."""
        self._recorder = recorder
        self._passed = passed
        self._asked = time.monotonic()
        self._status: int | None = None
        self._tail = b""
        self._events = 0
        self.outcome = "cancelled"
        """`answered`, `refused` (by the upstream), `failed`, or `cancelled` (the client left)."""

    @property
    def tokens(self) -> int:
        """Of prompt and answer, as the upstream counts them.

        If it does not tell, an estimate: the characters of the request's text / 4, and the number
        of events of the stream. A request that was not answered has none.
        """
        totals = _TOTAL.findall(self._tail)
        if totals:
            return int(totals[-1])
        return self._passed.prompt_tokens + self._events if self._succeeded else 0

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
        if self._passed.decodes and self._succeeded:
            self._recorder.observe(metric, time.monotonic() - self._asked, mode=Mode.SEQUENTIAL)

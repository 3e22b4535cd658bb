"""How long a server that takes nothing for now is left alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from plato.engine.errors import EngineBusyError

SHORTEST_S = 0.5
"""The first pause after a refusal that names no time; doubles with each further one."""
LONGEST_S = 4.0
MOST_TOLD_S = 60.0
"""No server is left alone for longer, whatever it says."""


class ServerPause:
    """Of one server: as long as its last refusal says, else longer with each refusal in a row."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refusal: EngineBusyError | None = None
        self._ends_at = 0.0
        self._next_s = SHORTEST_S

    @property
    def reason(self) -> str:
        """Why it is left alone; empty: it is not."""
        return str(self._refusal) if self._left_s > 0 else ""

    @contextmanager
    def respected(self) -> Iterator[None]:
        """Ask the server for a sequence in this block.

        Raises `EngineBusyError` with the time that is left, without asking it during a pause.
        """
        if self._refusal is not None and self._left_s > 0:
            raise self._again(self._refusal)
        try:
            yield
        except EngineBusyError as refusal:
            self._begin(refusal)
            raise self._again(refusal) from refusal
        self._next_s = SHORTEST_S

    @property
    def _left_s(self) -> float:
        return self._ends_at - self._clock()

    def _again(self, refusal: EngineBusyError) -> EngineBusyError:
        return type(refusal)(str(refusal), self._left_s)

    def _begin(self, refusal: EngineBusyError) -> None:
        told_s, pause_s = refusal.retry_after_s, self._next_s
        if told_s is not None:
            pause_s = max(SHORTEST_S, min(told_s, MOST_TOLD_S))
        elif self._left_s > 0:
            # Of several sequences that were sent together.
            return
        else:
            self._next_s = min(2 * self._next_s, LONGEST_S)
        self._refusal = refusal
        self._ends_at = max(self._ends_at, self._clock() + pause_s)

"""How long another process may be silent before it counts as lost.

A detector that was late itself cannot judge, so time in which this process's event loop did not run
does not count. And on a busy machine processes answer late without being lost: silence has to be
several times as long as any pause that was seen recently (the idea of accrual failure detectors,
Hayashibara et al., 2004, with a decaying maximum in place of a distribution).
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

TICK_S = 0.1
TOLERANCE_S = 0.05
"""Lateness of a tick that is normal."""
LATENESS_KEPT = 0.98
"""Share of the recent lateness that is left after a tick: half of it after 3.4 s."""

PAUSES = 3.0
"""Silence counts from this many times the longest recent pause."""
PAUSE_KEPT = 0.9
"""Share of the longest pause that is left after a shorter one."""
MOST = 5.0
"""Longest silence, in units of the shortest, however long the pauses are."""


class LoopClock:
    """The time for which an event loop has run: without that in which it was late."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lost = 0.0
        self._lateness = 0.0
        self._due = 0.0
        self._expect()

    @property
    def lateness(self) -> float:
        """The longest recent lateness, in seconds."""
        # What the loop runs right after a pause comes before the tick that is due.
        return max(self._lateness, self._loop.time() - self._due)

    def time(self) -> float:
        """Seconds since some moment."""
        return self._loop.time() - self._lost

    def _expect(self) -> None:
        # A timer and not a task: timers run in the order of their times, so after a pause this
        # one runs before the timeouts that would judge others by it.
        self._due = self._loop.time() + TICK_S
        self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        late = self._loop.time() - self._due
        if late > TOLERANCE_S:
            self._lost += late
        self._lateness = max(late, LATENESS_KEPT * self._lateness)
        self._expect()


_clocks: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClock] = WeakKeyDictionary()


def loop_clock() -> LoopClock:
    """The clock of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _clocks:
        _clocks[loop] = LoopClock(loop)
    return _clocks[loop]


class Patience:
    """With processes of one kind, or with one."""

    def __init__(self, least_s: float) -> None:
        """`least_s`: the shortest silence that counts."""
        self._least_s = least_s
        self._longest_s = 0.0

    @property
    def limit_s(self) -> float:
        """Silence of this length counts."""
        return min(MOST * self._least_s, max(self._least_s, PAUSES * self._longest_s))

    def note(self, pause_s: float) -> None:
        """Note how long a process was silent that is not lost."""
        self._longest_s = max(pause_s, PAUSE_KEPT * self._longest_s)

    def watch(self) -> Watch:
        """Watch one stream or process from now on."""
        return Watch(self)


class Watch:
    """One stream or process that is heard now and then."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._clock = loop_clock()
        self._heard = self._clock.time()

    def heard(self) -> None:
        """Note that it was heard."""
        now = self._clock.time()
        self._patience.note(now - self._heard)
        self._heard = now

    def restart(self) -> None:
        """Do not count the time so far."""
        self._heard = self._clock.time()

    @property
    def left_s(self) -> float:
        """Seconds of silence that are left; at most 0 if it counts as lost."""
        return self._heard + self._patience.limit_s - self._clock.time()

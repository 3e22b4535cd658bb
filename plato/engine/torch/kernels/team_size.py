"""How many threads compute a step."""

from __future__ import annotations

WINDOW_S = 0.1
"""How long steps are measured before a decision."""
CROWDED = 0.5
"""Share of a core that the calling thread gets, below which it computes alone."""
FREE = 0.9
"""Share above which it computes with the others again."""
LONGEST_REST = 64
"""Windows."""


class TeamSize:
    """All threads, or one while other processes want the cores.

    The threads of a team wait for each other hundreds of times in a step. If another process has
    taken the core of one of them, the others wait until it gets it back: with 16 busy processes on
    two cores, two threads are many times slower than one.
    """

    def __init__(self) -> None:
        self._alone = False
        self._busy_s = self._window_s = 0.0
        self._windows = 0
        """Since the last change."""
        self._rest = 1
        """Windows to compute alone; doubles when the team had to be left again soon."""

    def size(self, threads: int) -> int:
        """How many of so many threads compute the next step."""
        return 1 if self._alone else threads

    def note(self, busy_s: float, wall_s: float) -> None:
        """Note that a step took the calling thread `busy_s` of CPU time in `wall_s`."""
        self._busy_s += busy_s
        self._window_s += wall_s
        if self._window_s < WINDOW_S:
            return
        share = self._busy_s / self._window_s
        self._busy_s = self._window_s = 0.0
        self._windows += 1
        if self._alone and share > FREE and self._windows >= self._rest:
            self._alone, self._windows = False, 0
        elif not self._alone and share < CROWDED:
            soon = self._windows <= self._rest
            self._rest = min(2 * self._rest, LONGEST_REST) if soon else 1
            self._alone, self._windows = True, 0

"""How often sequences send their tokens to a scheduler."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

HIDDEN_INTERVALS = 3
"""Factor by which nodes whose text is not visible yet send less often. An integer, so that they
send together with others (see `plato.engine.mailbox`)."""
MESSAGES_PER_S = 1000
"""What a scheduler should receive at most. One takes about 0.3 ms of its processor
(`benchmarks.scaleout`), nearly all of it for Ray, however many tokens are in it."""


class StreamInterval:
    """The interval over which tokens are grouped; longer if many sequences are decoded.

    Without that, a scheduler with too many decoders would fall behind, and every text would wait
    for seconds.
    """

    def __init__(self, shortest_s: float) -> None:
        self._shortest_s = shortest_s
        self._sequences = 0

    @contextmanager
    def sequence(self) -> Iterator[None]:
        """Count a sequence while the context lasts."""
        self._sequences += 1
        try:
            yield
        finally:
            self._sequences -= 1

    def seconds(self, *, hidden: bool) -> float:
        """Of a sequence that starts now: a multiple of the shortest interval."""
        if not self._shortest_s:
            return 0.0
        needed = math.ceil(self._sequences / (MESSAGES_PER_S * self._shortest_s))
        return self._shortest_s * max(1, needed) * (HIDDEN_INTERVALS if hidden else 1)

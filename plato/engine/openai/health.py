"""Whether a server is well, as it says itself when it is asked again and again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from plato.engine.errors import EngineError, EngineUnreadyError, OtherModelError, UpstreamError

logger = logging.getLogger(__name__)

INTERVAL_S = 2.0
"""Time between two checks."""
FAILURES = 2
"""Failed checks in a row after which a server is away: a busy one can be late."""


class Health:
    """Of one server. Changes are logged."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._failures = 0
        """Failed checks in a row."""
        self._unready = False
        """Whether it is there, but not ready."""
        self.problem = ""
        """Why nothing should be sent to the server; empty: it is well."""

    @property
    def error(self) -> EngineError:
        """What to raise in place of sending something to the server."""
        if self._unready:
            return EngineUnreadyError(self.problem, INTERVAL_S)
        return UpstreamError(self.problem)

    async def check(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Ask with `probe`, which raises an `EngineError` if the server is not well.

        After an error other than `OtherModelError` it gets another chance.
        """
        try:
            await probe()
        except EngineError as error:
            self._failures += 1
            self._unready = isinstance(error, EngineUnreadyError)
            if self._failures >= FAILURES or isinstance(error, OtherModelError):
                self._note(str(error))
        else:
            self._failures = 0
            self._note("")

    def _note(self, problem: str) -> None:
        if problem and problem != self.problem:
            logger.warning("%s: %s", self._url, problem)
        if self.problem and not problem:
            logger.info("%s is well again", self._url)
        self.problem = problem

"""Which of several servers answers a request."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus
from itertools import pairwise

from plato.api.passthrough.outgoing import Passed
from plato.api.passthrough.upstream import Upstream
from plato.engine.openai import health
from plato.engine.openai.response import UpstreamResponse
from plato.errors import UnavailableError
from plato.settings import Settings
from plato.tasks import end_task, repeat

logger = logging.getLogger(__name__)

ELSEWHERE = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Statuses that are about the server, so that another one may answer. 500 is not among them: the
request may be what the server fails of."""
LOAD_FACTOR = 1.25
"""No server has more than this times its share of the requests, if it can be helped."""


class Upstreams:
    """The servers of the engine, or none if it is no server of others. `close` it at the end.

    The turns of a conversation go to the same server, whose prefix cache has the earlier ones,
    unless it is away or has more than its share: rendezvous hashing with bounded loads (Mirrokni et
    al., "Consistent Hashing with Bounded Loads", 2018). Belongs to one event loop.
    """

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = upstreams
        self._watching: asyncio.Task[None] | None = None
        """Checks their health from the first request on; ended by `close`."""

    @classmethod
    def of(cls, settings: Settings) -> Upstreams:
        """Those that the settings name. Raises `SettingsError` if their key cannot be read."""
        urls = settings.upstreams
        names = [f"upstream server {number} of {len(urls)}" for number in range(1, len(urls) + 1)]
        if len(urls) == 1:
            names = ["the upstream server"]
        return cls([Upstream(*named, settings) for named in zip(names, urls, strict=True)])

    def __bool__(self) -> bool:
        return bool(self._upstreams)

    @asynccontextmanager
    async def open(self, passed: Passed) -> AsyncIterator[UpstreamResponse]:
        """The answer of the first server that answers; see `Upstream.open`.

        In place of a server that is away, or whose status is one of `ELSEWHERE`, another one is
        asked: nothing of an answer has reached the client.
        """
        self._watching = self._watching or asyncio.create_task(
            repeat(health.INTERVAL_S, self._check), name="watch-upstreams"
        )
        async with AsyncExitStack() as stack:
            ranked = self._ranked(passed.opening)
            for upstream, following in pairwise(ranked):
                try:
                    response = await stack.enter_async_context(upstream.open(passed))
                except UnavailableError:
                    continue
                if response.status not in ELSEWHERE or not following.available:
                    break
                logger.warning(
                    "%s answers status %d; asking another one", upstream.url, response.status
                )
                await stack.aclose()
            else:
                response = await stack.enter_async_context(ranked[-1].open(passed))
            yield response

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        if self._watching is not None:
            await end_task(self._watching)
        for upstream in self._upstreams:
            await upstream.close()

    def _ranked(self, opening: bytes) -> list[Upstream]:
        """The servers for conversations of this opening, best first."""
        total = sum(upstream.in_flight for upstream in self._upstreams)
        share = math.ceil(LOAD_FACTOR * (total + 1) / len(self._upstreams))

        def rank(upstream: Upstream) -> tuple[bool, bool, bytes]:
            weight = hashlib.blake2b(opening + upstream.url.encode(), digest_size=8).digest()
            return not upstream.available, upstream.in_flight >= share, weight

        return sorted(self._upstreams, key=rank)

    async def _check(self) -> None:
        """Check the health of all servers."""
        await asyncio.gather(*(upstream.check() for upstream in self._upstreams))

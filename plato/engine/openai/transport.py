"""HTTP to one server: its key, bounded connections, and a circuit breaker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from plato.breaker import CircuitBreaker
from plato.engine.errors import UpstreamError

IDLE_S = 2.0
"""How long a connection is kept that nobody uses: less than at servers (uvicorn: 5 s), so that none
is closed just as a request is sent."""


class UpstreamTransport:
    """Sends requests to one server; after an outage they fail fast until it answers again.

    Belongs to one event loop.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        max_connections: int,
        connect_s: float,
        silence_s: float,
        is_outage: Callable[[httpx.Response], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`silence_s` bounds each wait for data; for responses that are an outage see `is_outage`.

        By default, a server that answers is well, whatever the status.
        """
        self._is_outage = is_outage
        self._clock = clock
        self._breaker = CircuitBreaker(clock=clock)
        self.heard_at = clock()
        """When it last answered."""
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            # One caller must not be recognised by what another one was sent.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            limits=httpx.Limits(max_connections=max_connections, keepalive_expiry=IDLE_S),
            timeout=httpx.Timeout(silence_s, connect=connect_s),
        )

    @property
    def available(self) -> bool:
        """Whether the last request was answered."""
        return self._breaker.available

    async def send(
        self, method: str, path: str, *, deadline_s: float | None, **content: Any
    ) -> httpx.Response:
        """The response, as soon as its status is there; the caller closes it.

        `content` are arguments of `httpx.AsyncClient.build_request`. Raises `UpstreamError` during
        an outage, `TimeoutError` after `deadline_s`, and `httpx.HTTPError`.
        """
        if not self._breaker.admit():
            raise UpstreamError("the server is away; trying again in a moment")
        try:
            request = self._http.build_request(method, path, **content)
            async with asyncio.timeout(deadline_s):
                response = await self._http.send(request, stream=True)
        except (TimeoutError, httpx.TimeoutException):
            self._breaker.failed(timed_out=True)
            raise
        except httpx.HTTPError:
            self._breaker.failed()
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        self.note_heard()
        if self._is_outage(response):
            self._breaker.failed()
        else:
            self._breaker.succeeded()
        return response

    def note_heard(self) -> None:
        """The server has sent something."""
        self.heard_at = self._clock()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

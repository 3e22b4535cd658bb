"""HTTP to one server: its key, bounded connections, and a circuit breaker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from plato.breaker import CircuitBreaker
from plato.engine.errors import UpstreamError

PING_DEADLINE_S = 5.0
IDLE_S = 2.0
"""How long a connection is kept that nobody uses: less than at servers (uvicorn: 5 s), so that none
is closed just as a request is sent."""


class _WatchedStream(httpx.AsyncByteStream):
    """Calls `on_piece` for every piece of a body that arrives."""

    def __init__(self, stream: httpx.AsyncByteStream, on_piece: Callable[[], None]) -> None:
        self._stream = stream
        self._on_piece = on_piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            self._on_piece()
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


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
        """When it last sent something."""
        self.outages = 0
        """Times that it was not there, or broke off: it may have restarted, even as another one."""
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
        if self._is_outage(response):
            self.heard_at = self._clock()
            self._breaker.failed()
        else:
            self._note_heard()
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = _WatchedStream(response.stream, self._note_heard)
        return response

    async def ping(self, path: str) -> None:
        """A GET of which only the status matters; also sent during an outage, which may be over.

        Raises `UpstreamError` if the server does not answer, or with a status of 500 or more, as
        ingresses do for a server that is gone. It may be late while it sends something else.
        """
        asked_at = self._clock()
        try:
            async with asyncio.timeout(PING_DEADLINE_S):
                response = await self._http.send(self._http.build_request("GET", path), stream=True)
                await response.aclose()
        except (TimeoutError, httpx.TimeoutException) as error:
            if self.heard_at <= asked_at:
                raise UpstreamError(f"{path}: the server does not answer in time") from error
            return
        except httpx.HTTPError as error:
            self.outages += 1
            reason = str(error) or type(error).__name__
            raise UpstreamError(f"{path}: the server is away: {reason}") from error
        if response.is_server_error:
            self.outages += 1
            raise UpstreamError(f"{path}: the server is away: status {response.status_code}")
        self._note_heard()

    def _note_heard(self) -> None:
        """The server has sent something, so it is not away."""
        self.heard_at = self._clock()
        self._breaker.succeeded()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

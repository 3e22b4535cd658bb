"""HTTP to one server: its key, bounded connections, and a circuit breaker."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
import httpx

from plato.breaker import CircuitBreaker
from plato.engine.errors import EngineUnreadyError, UpstreamError
from plato.engine.openai.response import UpstreamResponse

logger = logging.getLogger(__name__)

PING_DEADLINE_S = 5.0
IDLE_S = 2.0
"""How long a connection is kept that nobody uses: less than at servers (uvicorn: 5 s), so that none
is closed just as a request is sent."""
STALE = 3
"""Connections in a row that a server may have closed just as a request was sent, for other reasons
(llama.cpp's closes each after 100 requests)."""


class UpstreamTransport:
    """Sends requests to one server; after an outage they fail fast until it answers again.

    Callers bound the time: only connecting has a deadline of its own. Belongs to one event loop.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        max_connections: int,
        connect_s: float,
        is_outage: Callable[[int], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """For responses that are an outage see `is_outage`, which is called with their status.

        By default, a server that answers is well, whatever the status.
        """
        self._url = url
        self._is_outage = is_outage
        self._clock = clock
        self._breaker = CircuitBreaker(clock=clock)
        self.heard_at = clock()
        """When it last sent something."""
        self.outages = 0
        """Times that it was not there, or broke off: it may have restarted, even as another one."""
        # Bodies are passed back as they arrive.
        headers = {"Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._http = aiohttp.ClientSession(
            headers=headers,
            auto_decompress=False,
            # One caller must not be recognised by what another one was sent.
            cookie_jar=aiohttp.DummyCookieJar(),
            connector=aiohttp.TCPConnector(
                limit=max_connections,
                keepalive_timeout=IDLE_S,
                # A server that restarts can have another address.
                use_dns_cache=False,
                # Its certificates are there on every system, and SSL_CERT_FILE names others.
                ssl=httpx.create_ssl_context(),
            ),
            timeout=aiohttp.ClientTimeout(sock_connect=connect_s),
            trace_configs=[_trace_reuse()],
            trust_env=True,
        )
        self._reading: dict[asyncio.Future[None], aiohttp.StreamReader] = {}
        """The body that arrives on a connection, by the future of its end; see `_watch`."""

    @property
    def available(self) -> bool:
        """Whether the last request was answered."""
        return self._breaker.available

    async def send(
        self, method: str, path: str, *, deadline_s: float | None, **content: Any
    ) -> UpstreamResponse:
        """The response, as soon as its head is there; the caller closes it.

        `content` are arguments of `aiohttp.ClientSession.request`. Raises `UpstreamError` if the
        server is away, without asking it during an outage, and `TimeoutError` after `deadline_s`.
        """
        if not self._breaker.admit():
            raise UpstreamError("the server is away; trying again in a moment")
        try:
            async with asyncio.timeout(deadline_s):
                response = await self._request(method, path, **content)
        except TimeoutError:
            self._breaker.failed(timed_out=True)
            raise
        except UpstreamError:
            self._breaker.failed()
            raise
        except BaseException:
            self._breaker.abandoned()
            raise
        on_piece = self._note_heard
        if self._is_outage(response.status):
            self._breaker.failed()
            on_piece = self._note_time
        on_piece()
        return UpstreamResponse(response, on_piece, self._lost)

    async def ping(self, path: str) -> None:
        """A GET of which only the status matters; also sent during an outage, which may be over.

        Raises `UpstreamError` if the server does not answer, or with a status of 500 or more, as
        ingresses do for a server that is gone, and `EngineUnreadyError` if that is 503. It may be
        late while it sends something else.
        """
        asked_at = self._clock()
        try:
            async with asyncio.timeout(PING_DEADLINE_S):
                response = await self._request("GET", path)
        except TimeoutError as error:
            if self.heard_at <= asked_at:
                raise UpstreamError(f"{path}: the server does not answer in time") from error
            return
        except UpstreamError as error:
            raise UpstreamError(f"{path}: {error}") from error
        response.close()
        if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self.outages += 1
            if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
                raise EngineUnreadyError(f"{path}: the server is not ready: status 503")
            raise UpstreamError(f"{path}: the server is away: status {response.status}")
        self._note_heard()

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def _request(self, method: str, path: str, **content: Any) -> aiohttp.ClientResponse:
        """The response, as soon as its head is there. Raises `UpstreamError` and `TimeoutError`."""
        for attempt in range(STALE + 1):
            reuse = _Reuse()
            try:
                response = await self._http.request(
                    method,
                    f"{self._url}{path}",
                    allow_redirects=False,
                    trace_request_ctx=reuse,
                    **content,
                )
            except aiohttp.ServerTimeoutError:
                raise
            except aiohttp.ClientError as error:
                stale = isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError)
                if stale and reuse.reused and attempt < STALE:
                    continue
                raise self._lost(error) from error
            self._watch(response)
            return response
        raise AssertionError("the last attempt returns or raises")

    def _watch(self, response: aiohttp.ClientResponse) -> None:
        """Have reading fail when the connection ends.

        aiohttp closes a connection on which something else than HTTP arrives, and leaves whoever
        reads the body to wait.
        """
        protocol = response.connection and response.connection.protocol
        if protocol is None:  # All of it is there.
            return
        end = protocol.closed
        if end is None:
            _end(response.content)
            return
        # A connection that is kept has many bodies, and one callback.
        if end not in self._reading:
            end.add_done_callback(self._on_end)
        self._reading[end] = response.content

    def _on_end(self, end: asyncio.Future[None]) -> None:
        # asyncio logs exceptions that nobody asks for.
        end.cancelled() or end.exception()
        _end(self._reading.pop(end))

    def _lost(self, error: aiohttp.ClientError) -> UpstreamError:
        self.outages += 1
        # What is raised can reach clients, and aiohttp's message has the server's address.
        logger.info("%s: %s", self._url, error)
        return UpstreamError(f"the server is away: {type(error).__name__}")

    def _note_heard(self) -> None:
        """The server has sent something, so it is not away."""
        self._note_time()
        self._breaker.succeeded()

    def _note_time(self) -> None:
        self.heard_at = self._clock()


@dataclass(slots=True)
class _Reuse:
    """Whether a request went over a connection that had been used before."""

    reused: bool = False


def _trace_reuse() -> aiohttp.TraceConfig:
    async def note(_: aiohttp.ClientSession, context: Any, __: Any) -> None:
        context.trace_request_ctx.reused = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(note)
    return trace


def _end(body: aiohttp.StreamReader) -> None:
    """Have reading it fail, unless it is complete, or fails already."""
    if not body.is_eof() and body.exception() is None:
        body.set_exception(aiohttp.ClientPayloadError("what arrives is no HTTP"))

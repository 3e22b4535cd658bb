"""Calls to a Plato server: JSON, server-sent events, and errors in our hierarchy."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

import httpx

from plato.api.questions.requests import write_body
from plato.client.errors import reason_of, refusal, unreachable
from plato.errors import AuthenticationError, UnavailableError
from plato.sse import EventParser

CONNECT_S = 5.0
ANSWER_S = 600.0
"""Longest wait for the beginning of a response: a question can wait for its admission."""
SILENCE_S = 60.0
"""Longest wait within a stream, which has a ping every 10 s."""
_LOOPBACK = re.compile(r"https?://(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?(/|$)")


class Connection:
    """Connections to one server; belongs to one event loop."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """`url` is the server's root or its `/v1`. Raises `AuthenticationError`."""
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise AuthenticationError("the API key has characters that none has; copy it again")
        self.base = url.rstrip("/").removesuffix("/v1")
        self._http = httpx.AsyncClient(
            headers={
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
            },
            # A proxy from the environment cannot reach a server on this machine.
            trust_env=_LOOPBACK.match(self.base) is None,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        deadline_s: float = ANSWER_S,
    ) -> Any:
        """The JSON of a response. Raises a `PlatoError`."""
        content = None if body is None else write_body(body)
        with self.understood():
            async with asyncio.timeout(deadline_s):
                response = await self._http.request(
                    method, self.base + path, content=content, params=params
                )
            if not response.is_success:
                raise refusal(response)
            return response.json()

    async def events(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[str]:
        """The data of each server-sent event of a response. Raises a `PlatoError`."""
        content = None if body is None else write_body(body)
        with self.understood():
            request = self._http.stream(method, self.base + path, content=content, headers=headers)
            async with request as response:
                if not response.is_success:
                    await response.aread()
                    raise refusal(response)
                async with aclosing(self._events_of(response)) as events:
                    async for data in events:
                        yield data

    async def _events_of(self, response: httpx.Response) -> AsyncGenerator[str]:
        parser = EventParser()
        pieces = response.aiter_bytes()
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    piece = await anext(pieces, b"")
            except (httpx.HTTPError, TimeoutError) as error:
                raise UnavailableError(
                    f"the answer from {self.base} breaks off ({reason_of(error)}); try again"
                ) from error
            if not piece:
                return
            for data in parser.feed(piece):
                yield data

    @contextmanager
    def understood(self) -> Iterator[None]:
        """Within the block, failures of HTTP and of reading what the server said are our errors."""
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise unreachable(self.base, error) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UnavailableError(
                f"{self.base} may not be a Plato server: unexpected response "
                f"({type(error).__name__}: {error}); correct the URL"
            ) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

"""A server's response, whose body is read as it arrives."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from plato.engine.errors import UpstreamError

MAX_ANSWER_BYTES = 4 << 20
"""Limit of an answer that is no stream."""
MAX_RETRY_S = 3600.0
"""Nobody is told to wait for longer."""


class UpstreamResponse:
    """A response whose head has arrived. Whoever gets it closes it."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        on_piece: Callable[[], None],
        on_loss: Callable[[aiohttp.ClientError], UpstreamError],
    ) -> None:
        """`on_piece` is called for all that arrives; `on_loss` gives the error if it breaks off."""
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        """Names are compared without regard to case."""
        self._response = response
        self._on_piece = on_piece
        self._on_loss = on_loss

    @property
    def location(self) -> str:
        """Where a redirect leads; empty: it is none."""
        return self.headers.get("location", "")

    @property
    def retry_after_s(self) -> float | None:
        """The time after which the server wants to be asked again, in seconds (RFC 9110, 10.2.3).

        `None`: it names none.
        """
        value = self.headers.get("retry-after", "")
        try:
            if value.isdecimal():
                return min(float(value), MAX_RETRY_S)
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        # Dates without a time zone are in UTC.
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        left_s = math.ceil((at - datetime.now(UTC)).total_seconds())
        return min(max(0.0, left_s), MAX_RETRY_S)

    async def read(self) -> bytes:
        """What has arrived of the body, as soon as there is something; nothing at its end.

        Raises `UpstreamError` if the server breaks off.
        """
        try:
            piece = await self._response.content.readany()
        except aiohttp.ClientError as error:
            raise self._on_loss(error) from error
        self._on_piece()
        return piece

    async def read_all(self, deadline_s: float) -> bytes:
        """The rest of the body.

        Raises `TimeoutError` after `deadline_s`, and `UpstreamError` if the server breaks off, or
        sends more than `MAX_ANSWER_BYTES`.
        """
        content = bytearray()
        async with asyncio.timeout(deadline_s):
            while piece := await self.read():
                content += piece
                if len(content) > MAX_ANSWER_BYTES:
                    raise UpstreamError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        return bytes(content)

    def close(self) -> None:
        """Cancel what is left of it."""
        self._response.close()

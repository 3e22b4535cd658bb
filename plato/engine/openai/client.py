"""Calls to one server: deadlines, JSON, and what its statuses mean."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from http import HTTPStatus
from typing import Any

from plato.engine.errors import UpstreamError
from plato.engine.openai.config import UpstreamConfig
from plato.engine.openai.response import UpstreamResponse
from plato.engine.openai.statuses import error_detail, is_busy, status_error
from plato.engine.openai.transport import UpstreamTransport
from plato.sse import EventParser, EventStreamError

logger = logging.getLogger(__name__)

CONTROL_CONNECTIONS = 4
"""Connections beside those of sequences, for health and the like."""
MAX_LOGGED = 300
"""Bytes of an unexpected answer that are logged."""
DONE = "[DONE]"
"""Data of the last event of OpenAI's streams."""


class UpstreamClient:
    """Calls to one server.

    They raise `UpstreamError` if it is away or answers nonsense, `EngineBusyError` if it has no
    room and `RequestRefusedError` if it refuses the request. After an outage they fail fast until
    it answers again. What it says beyond that is logged. Belongs to one event loop.
    """

    def __init__(self, config: UpstreamConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._transport = UpstreamTransport(
            config.url,
            config.key,
            max_connections=config.max_sequences + CONTROL_CONNECTIONS,
            connect_s=config.connect_s,
            is_outage=_is_outage,
            clock=clock,
        )

    @property
    def available(self) -> bool:
        """Whether the last call was answered."""
        return self._transport.available

    @property
    def heard_at(self) -> float:
        """When it last sent something."""
        return self._transport.heard_at

    @property
    def outages(self) -> int:
        """See `UpstreamTransport.outages`."""
        return self._transport.outages

    async def ask(self, path: str, body: object = None, *, deadline_s: float | None = None) -> Any:
        """The JSON that the server answers; a GET without a body. `None` if there is none."""
        deadline_s = deadline_s or self._config.answer_s
        async with self._answer(path, body, deadline_s) as response:
            content = await response.read_all(deadline_s)
            try:
                return json.loads(content or b"null")
            except ValueError as error:
                self._log(path, response.status, content)
                raise UpstreamError("the answer is no JSON") from error

    async def text(self, path: str) -> str:
        """The text that the server answers to a GET."""
        async with self._answer(path, None, self._config.answer_s) as response:
            content = await response.read_all(self._config.answer_s)
            return content.decode(errors="replace")

    async def ping(self, path: str) -> None:
        """See `UpstreamTransport.ping`."""
        await self._transport.ping(path)

    async def stream(self, path: str, body: object) -> AsyncGenerator[Any]:
        """The JSON of each event that the server streams.

        Raises `UpstreamError` if the stream ends within an event, an event does not arrive in time,
        or is no JSON. Errors that the server reports in an event are raised like statuses.
        """
        parser = EventParser()
        async with self._answer(path, body, self._config.answer_s) as response:
            deadline_s = self._config.answer_s
            while True:
                found: list[str] = []
                # Comments that keep the connection open are no progress.
                async with asyncio.timeout(deadline_s):
                    while not found and (piece := await response.read()):
                        found = self._events(path, parser, piece)
                if not found:
                    # What is there of a line may show that it is no stream of events at all.
                    self._events(path, parser, b"\n")
                    if parser.within_event:
                        raise UpstreamError("the answer ended within an event")
                    return
                deadline_s = self._config.silence_s
                for data in found:
                    if data == DONE:
                        return
                    yield self._event(path, data)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    @asynccontextmanager
    async def _answer(
        self, path: str, body: object, deadline_s: float
    ) -> AsyncIterator[UpstreamResponse]:
        """The server's answer, whose status is a success."""
        method = "GET" if body is None else "POST"
        try:
            response = await self._transport.send(method, path, deadline_s=deadline_s, json=body)
            with closing(response):
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    content = await response.read_all(deadline_s)
                    self._log(path, response.status, response.location or content)
                    detail = error_detail(content)
                    raise status_error(response.status, detail, response.retry_after_s)
                yield response
        except UpstreamError as error:
            raise type(error)(f"{path}: {error}") from error
        except TimeoutError as error:
            self._transport.outages += 1
            raise UpstreamError(f"{path}: the server does not answer in time") from error

    def _events(self, path: str, parser: EventParser, piece: bytes) -> list[str]:
        """The data of the events that end in a piece of a stream."""
        try:
            return parser.feed(piece)
        except EventStreamError as error:
            self._log(path, HTTPStatus.OK, str(error))
            raise UpstreamError("the answer is no stream of server-sent events") from error

    def _event(self, path: str, data: str) -> Any:
        """The JSON of an event; raises what it reports if it is an error."""
        try:
            event = json.loads(data)
        except ValueError as error:
            self._log(path, HTTPStatus.OK, data)
            raise UpstreamError("an event of the answer is no JSON") from error
        if not isinstance(event, dict):
            self._log(path, HTTPStatus.OK, data)
            raise UpstreamError("an event of the answer is no object")
        if problem := event.get("error"):
            code = problem.get("code") if isinstance(problem, dict) else None
            status = code if isinstance(code, int) else HTTPStatus.INTERNAL_SERVER_ERROR
            self._log(path, status, data)
            raise status_error(status, error_detail(data))
        return event

    def _log(self, path: str, status: int, content: bytes | str) -> None:
        """Log the beginning of an answer that is not what was asked for."""
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return  # Some servers repeat part of the key.
        logger.info(
            "%s%s answers status %d: %r", self._config.url, path, status, content[:MAX_LOGGED]
        )


def _is_outage(status: int) -> bool:
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR and not is_busy(status)

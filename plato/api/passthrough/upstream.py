"""One server that answers requests itself."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from plato.api.access.tenants import refuse_shared_cache
from plato.api.manners import REQUEST_ID
from plato.api.passthrough.outgoing import Passed
from plato.engine import EngineBusyError, EngineError
from plato.engine.errors import KeyRefusedError
from plato.engine.openai.connection import MODELS, identify
from plato.engine.openai.health import Health
from plato.engine.openai.response import UpstreamResponse
from plato.engine.openai.statuses import is_redirect, status_error
from plato.engine.openai.tenancy import tenant_salt
from plato.engine.openai.transport import UpstreamTransport
from plato.errors import BadGatewayError, UnavailableError
from plato.settings import Settings
from plato.tasks import Interruption

logger = logging.getLogger(__name__)

CONTROL_CONNECTIONS = 4
"""Connections beside those of requests, for health and the like."""
CONNECT_S = 10.0
"""Generous: a process that gets many requests at once is late itself."""
CONTROL_DEADLINE_S = 5.0
RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class _Server:
    """What is known of a server."""

    model: str
    salts: bool
    """Whether it separates the prefixes of tenants."""


class Upstream:
    """Passes requests to one server. Belongs to one event loop."""

    def __init__(self, name: str, url: str, settings: Settings) -> None:
        """`name` is for clients. Raises `SettingsError` if the key cannot be read."""
        self.url = url
        self._name = name
        self.in_flight = 0
        """Requests that it is answering."""
        self._heads: set[Interruption] = set()
        """Waits for the beginning of an answer."""
        self._answers: set[UpstreamResponse] = set()
        """Answers that have begun."""
        self._settings = settings
        self._key = settings.upstream_key()
        self._server: _Server | None = None
        self._identifying = asyncio.Lock()
        self._health = Health(url)
        self._health_path = MODELS
        """Where every server answers; that of its kind, once that is known."""
        self._transport = UpstreamTransport(
            url,
            self._key,
            max_connections=settings.max_requests + CONTROL_CONNECTIONS,
            connect_s=CONNECT_S,
        )

    @property
    def available(self) -> bool:
        """Whether the last request was answered, and it says that it is well."""
        return self._transport.available and not self._health.problem

    @asynccontextmanager
    async def open(self, passed: Passed) -> AsyncIterator[UpstreamResponse]:
        """The answer, as soon as it begins; leaving the block cancels what is left of it.

        Raises `UnavailableError` if the server is away, refuses the key or redirects, and
        `SettingsError` if it cannot keep the prompts of the configured tenants apart.
        """
        self.in_flight += 1
        try:
            with closing(await self._send(passed)) as response:
                self._answers.add(response)
                try:
                    yield response
                finally:
                    self._answers.remove(response)
        finally:
            self.in_flight -= 1

    async def check(self) -> None:
        """Ask whether it is well; what it runs is asked again after an outage.

        If it is not, nobody waits for its answers any more.
        """
        outages = self._transport.outages
        await self._health.check(lambda: self._transport.ping(self._health_path))
        if self._health.problem or self._transport.outages != outages:
            self._server = None
        if self._health.problem:
            for head in tuple(self._heads):
                head.interrupt(self._health.error)
            for answer in tuple(self._answers):
                answer.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def _send(self, passed: Passed) -> UpstreamResponse:
        try:
            if self._health.problem:
                raise self._health.error
            server, salt = await self._identified(), None
            if passed.decodes and server.salts:
                salt = tenant_salt(passed.tenant, self._key)
            with self._interruptible():
                response = await self._transport.send(
                    "POST",
                    passed.path,
                    # That of the whole answer is the caller's.
                    deadline_s=None,
                    data=passed.body(self._settings, server.model, salt),
                    headers={"Content-Type": "application/json", REQUEST_ID: passed.request_id},
                )
        except KeyRefusedError as error:
            raise self._refused_key() from error
        except (EngineError, TimeoutError) as error:
            raise self._away(error) from error
        if response.status == HTTPStatus.UNAUTHORIZED:
            response.close()
            raise self._refused_key()
        if is_redirect(response.status):
            response.close()
            raise self._redirected(response)
        return response

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        head = Interruption()
        self._heads.add(head)
        try:
            with head:
                yield
        finally:
            self._heads.remove(head)

    async def _identified(self) -> _Server:
        """The server; asked once, however many requests wait for it."""
        async with self._identifying:
            if self._server is None:
                self._server = await self._identify()
            return self._server

    async def _identify(self) -> _Server:
        """Ask for its model and its kind."""
        response = await self._transport.send("GET", MODELS, deadline_s=CONTROL_DEADLINE_S)
        with closing(response):
            if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                raise status_error(response.status, retry_after_s=response.retry_after_s)
            content = await response.read_all(CONTROL_DEADLINE_S)
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        settings = self._settings
        model, dialect = identify(answer, settings.upstream_model, settings.upstream_dialect)
        refuse_shared_cache(settings, dialect.capabilities)
        self._health_path = dialect.health
        return _Server(model["id"], dialect.capabilities.tenants)

    def _refused_key(self) -> UnavailableError:
        # What the server says is about this server's key, and can have some of it.
        logger.error("%s refuses the key; check upstream_api_key", self.url)
        return UnavailableError(
            f"{self._name} refuses the key of this server; ask the operator to check "
            "upstream_api_key"
        )

    def _redirected(self, response: UpstreamResponse) -> BadGatewayError:
        # Where it leads is none of the client's business: it has no key there.
        logger.error(
            "%s redirects with status %d to %s; correct upstreams",
            self.url,
            response.status,
            response.location,
        )
        return BadGatewayError(
            f"{self._name} redirects with status {response.status}; ask the operator to correct "
            "upstreams"
        )

    def _away(self, error: Exception) -> UnavailableError:
        reason = str(error) or "no answer in time"
        logger.warning("%s: %s", self.url, reason)
        told_s = error.retry_after_s if isinstance(error, EngineBusyError) else None
        return UnavailableError(
            f"{self._name} does not answer ({reason}); try again in a moment",
            retry_after_s=told_s or RETRY_AFTER_S,
        )

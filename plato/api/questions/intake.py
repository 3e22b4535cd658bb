"""The way of a request to its run, which all endpoints that ask a question share."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request

from plato.api.access.limits import Limits
from plato.api.access.tenants import tenant_of
from plato.api.drain import Drain
from plato.api.questions.body import BodyReader
from plato.api.questions.requests import to_run_request
from plato.api.questions.schemas import ChatCompletionRequest
from plato.api.service import RunService
from plato.metrics import Recorder
from plato.metrics.table import IGNORED_PARAMETERS
from plato.runs import RunRequest
from plato.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """A request whose body is there."""

    body: bytes
    tenant: str
    slot: ExitStack
    """Its slot among the requests in progress; `pop_all` keeps it for a stream."""


class Intake:
    """Receives questions, and makes runs of them."""

    def __init__(
        self,
        service: RunService,
        settings: Settings,
        recorder: Recorder,
        limits: Limits,
        drain: Drain,
    ) -> None:
        self._service = service
        self._settings = settings
        self._recorder = recorder
        self._limits = limits
        self._bodies = BodyReader(settings.body_deadline_s)
        self._drain = drain

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[Received]:
        """Receive the body, then take a slot of the tenant until the end of the block.

        Raises the errors of `BodyReader.read` and `Limits.question`.
        """
        body = await self._bodies.read(request)
        tenant = tenant_of(request)
        with self._limits.question(tenant) as slot:
            yield Received(body, tenant, slot)

    def new_run(
        self,
        request: Request,
        received: Received,
        body: ChatCompletionRequest,
        *,
        raw: bool = False,
    ) -> RunRequest:
        """A new run for the question in `body`, which the caller starts; for `raw` see there.

        Raises the errors of `to_run_request`, and `UnavailableError` if the server is stopping.
        """
        asked = to_run_request(
            body,
            settings=self._settings,
            context_length=self._service.context_length,
            sampling=self._service.sampling,
            fingerprint=self._service.fingerprint,
            tenant=received.tenant,
            raw=raw,
            traceparent=getattr(request.state, "traceparent", ""),
        )
        request.state.run = asked.run_id
        self._drain.refuse_new()
        for name in asked.ignored:
            self._recorder.add(IGNORED_PARAMETERS, parameter=name)
        extra = {"run": asked.run_id, "mode": asked.mode, "stream": bool(body.stream)}
        logger.info("run started", extra=extra)
        return asked

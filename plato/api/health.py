"""Health, for load balancers and operators."""

from __future__ import annotations

import asyncio
from typing import Literal

from pydantic import ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from plato.api.drain import Drain
from plato.api.operation import operation
from plato.api.service import RunService
from plato.api.wire import AnswerModel

READY_DEADLINE_S = 5.0


class Alive(AnswerModel):
    """This process runs."""

    status: Literal["ok"] = "ok"


class Ready(AnswerModel):
    """A question would be answered now; further fields describe the state of the service."""

    model_config = ConfigDict(extra="allow")

    status: Literal["ready"] = "ready"


class NotReady(AnswerModel):
    """A question would not be answered now."""

    status: Literal["not ready"] = "not ready"
    reason: str


class HealthRoutes:
    """`/healthz` and `/readyz`."""

    def __init__(self, service: RunService, drain: Drain) -> None:
        self._service = service
        self._drain = drain

    @operation(Alive)
    async def alive(self, request: Request) -> Response:
        """Whether this process runs."""
        return Alive().as_response()

    @operation(Ready, others={503: NotReady})
    async def ready(self, request: Request) -> Response:
        """Whether a question would be answered now; else 503 with the reason."""
        try:
            self._drain.refuse_new()
            async with asyncio.timeout(READY_DEADLINE_S):
                state = await self._service.ready()
        except Exception as error:
            reason = str(error) or "no response in time"
            return NotReady(reason=reason).as_response(503)
        return Ready.model_validate({**state, "status": "ready"}).as_response()

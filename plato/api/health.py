"""`/healthz` and `/readyz`: for load balancers and operators."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse

from plato.api.drain import Drain
from plato.api.service import RunService
from plato.engine import ReplicaHealth, ReplicaState
from plato.errors import UnavailableError

READY_DEADLINE_S = 5.0


def readiness(decoders: Sequence[ReplicaState]) -> dict[str, object]:
    """What `/readyz` says of decoders. Raises `UnavailableError` unless one of them decodes."""
    ready = [state for state in decoders if state.health is ReplicaHealth.READY]
    if not ready:
        reasons = dict.fromkeys(state.reason for state in decoders)
        raise UnavailableError("; ".join(reasons) or "there is no decoder yet")
    return {
        "decoders": {state.name: str(state.health) for state in decoders},
        "dtype": ready[0].dtype,
    }


class HealthRoutes:
    """Whether this process runs, and whether a question would be answered."""

    def __init__(self, service: RunService, drain: Drain) -> None:
        self._service = service
        self._drain = drain

    async def alive(self, request: Request) -> JSONResponse:
        """Whether this process runs."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> JSONResponse:
        """200 if a question would be answered now, else 503 with the reason."""
        try:
            self._drain.refuse_new()
            async with asyncio.timeout(READY_DEADLINE_S):
                state = await self._service.ready()
        except Exception as error:
            reason = str(error) or "no response in time"
            return JSONResponse({"status": "not ready", "reason": reason}, 503)
        return JSONResponse({"status": "ready", **state})

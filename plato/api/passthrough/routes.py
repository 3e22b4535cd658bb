"""Paths that only upstreams have."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from plato.api.operation import ASKING, FAILED, operation
from plato.api.passthrough.responder import PassThrough
from plato.api.questions.intake import Intake
from plato.api.wire import LenientModel, Name
from plato.errors import InvalidRequestError

PASSED_PATHS = (
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/score",
    "/v1/classify",
    "/v1/pooling",
    "/v1/moderations",
    "/v1/audio/speech",
    "/v1/images/generations",
)
"""Only paths that keep nothing: what an upstream stores (files, batches) it would show to every
tenant, as all of them share its key."""


class PassedRequest(LenientModel):
    """A request to the upstream server, whose documentation tells its fields."""

    model: Name | None = Field(
        default=None, description="Plato's names are for the upstream's model, others are its own."
    )


class PassedRoutes:
    """Everything at these paths is passed on."""

    def __init__(self, intake: Intake, passing: PassThrough) -> None:
        self._intake = intake
        self._passing = passing

    @operation(Any, body=PassedRequest, errors=(*ASKING, *FAILED), passed=True)
    async def create(self, request: Request) -> Response:
        """Have the upstream server answer."""
        async with self._intake.receive(request) as received:
            passed = self._passing.passed(request, received)
            if passed is None:
                raise InvalidRequestError("the body must be a JSON object", code="invalid_type")
            return await self._passing.respond(request, received, passed)

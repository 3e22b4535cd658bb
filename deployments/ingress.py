"""The HTTP endpoint: OpenAI's chat completions, and health."""

# No postponed annotations here: FastAPI reads them from functions that Serve has copied.
import asyncio
import hashlib
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException

from deployments.handles import detached, stream
from deployments.replica import start_replica
from plato.answering import Answering
from plato.api import sse
from plato.api.errors import ModelNotFoundError, as_plato_error, error_body, error_headers
from plato.api.requests import parse_request, to_run_request
from plato.api.responses import ChatResponse
from plato.assembly import ModelTools
from plato.errors import InvalidRequestError, PlatoError
from plato.runs import RunRequest
from plato.settings import Settings

logger = logging.getLogger(__name__)

READY_DEADLINE_S = 5.0
MAX_BODY_BYTES = 4 << 20

api = FastAPI(title="Plato", docs_url=None, redoc_url=None)


@api.exception_handler(PlatoError)
async def _report(_: Request, error: PlatoError) -> JSONResponse:
    return JSONResponse(error_body(error), error.status, error_headers(error))


@api.exception_handler(HTTPException)
async def _report_http(request: Request, error: HTTPException) -> JSONResponse:
    """What FastAPI finds itself: an unknown path, a wrong method."""
    told = InvalidRequestError(
        f"{request.method} {request.url.path}: {error.detail}", code="not_found"
    )
    told.status = error.status_code
    return await _report(request, told)


@api.exception_handler(Exception)
async def _report_unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("a request failed", exc_info=error, extra={"path": request.url.path})
    return await _report(request, as_plato_error(error))


async def _read(request: Request) -> bytes:
    """The body, within its bound."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise InvalidRequestError(
                f"the body is larger than {MAX_BODY_BYTES >> 20} MiB; send a shorter conversation"
            )
    return bytes(body)


def tenant_of(authorization: str) -> str:
    """Whose text a request holds: clients with the same API key share prefixes, others do not."""
    key = authorization.removeprefix("Bearer ").strip()
    return hashlib.blake2b(key.encode(), digest_size=8).hexdigest() if key else ""


# Serve copies the application as it stands at this point: what its functions use comes first.
@serve.deployment
@serve.ingress(api)
class Ingress:
    """Checks requests, opens runs, and composes their answers."""

    async def __init__(self, settings: Settings, scheduler: DeploymentHandle[Any]) -> None:  # type: ignore[misc]
        """Load the tokenizer."""
        start_replica(settings)
        self._settings = settings
        self._scheduler = scheduler
        self._streaming = scheduler.options(stream=True)
        self._tools = await asyncio.to_thread(ModelTools.load, settings)
        self._started = int(time.time())

    @api.post("/v1/chat/completions")
    async def chat_completions(self, request: Request) -> Response:
        """OpenAI's chat completions, with the extension object `plato`."""
        body = parse_request(await _read(request))
        run = to_run_request(
            body,
            settings=self._settings,
            tenant=tenant_of(request.headers.get("authorization", "")),
            run_id=uuid.uuid4().hex,
        )
        options = body.options
        answering = Answering(run, self._tools.text, headings=options.headings)
        response = ChatResponse(run.run, self._settings.model_name, body.include_usage)
        logger.info("run opened", extra={"run": run.run, "mode": run.mode, "stream": body.stream})
        if body.stream:
            return StreamingResponse(
                self._stream(run, answering, response, events=options.events),
                media_type=sse.MEDIA_TYPE,
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        async with aclosing(answering.follow(self._events(run))) as events:
            async for _ in events:
                pass
        answer = answering.answer()
        return Response(
            response.completion(answer),
            media_type="application/json",
        )

    @api.get("/v1/models")
    async def models(self) -> dict[str, Any]:
        """The one model that is served."""
        model = {
            "id": self._settings.model_name,
            "object": "model",
            "created": self._started,
            "owned_by": "plato",
        }
        return {"object": "list", "data": [model]}

    @api.get("/v1/models/{name:path}")
    async def model(self, name: str) -> dict[str, Any]:
        """One model by name."""
        listed = await self.models()
        if name != self._settings.model_name:
            raise ModelNotFoundError(
                f"the model '{name}' does not exist here; use '{self._settings.model_name}'",
                param="model",
            )
        found: dict[str, Any] = listed["data"][0]
        return found

    @api.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Whether this process lives."""
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz(self) -> JSONResponse:
        """Whether a question would be answered now: 200, or 503 with the reason."""
        try:
            async with asyncio.timeout(READY_DEADLINE_S):
                state = await detached(self._scheduler.ready.remote)
        except Exception as error:
            reason = str(error) or "no answer in time"
            return JSONResponse({"status": "not ready", "reason": reason}, 503)
        return JSONResponse({"status": "ready", **state})

    def _events(self, run: RunRequest) -> AsyncGenerator[Any]:
        return stream(lambda: self._streaming.run.remote(run))

    async def _stream(
        self, run: RunRequest, answering: Answering, response: ChatResponse, *, events: bool
    ) -> AsyncGenerator[bytes]:
        """The answer as server-sent events; a client that goes away closes this generator."""
        yield sse.event(response.opening())
        try:
            async with aclosing(answering.follow(self._events(run))) as followed:
                async for event, text in followed:
                    if events and (described := response.event(event)):
                        yield sse.event(described)
                    if text:
                        yield sse.event(response.text(text))
            answer = answering.answer()
        except Exception as error:
            if not isinstance(error, PlatoError):
                logger.exception("a stream failed", extra={"run": run.run})
            yield sse.event(json.dumps(error_body(as_plato_error(error))))
            return
        yield sse.event(response.closing(answer))
        if response.include_usage:
            yield sse.event(response.usage(answer))
        yield sse.DONE

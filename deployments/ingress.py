"""The HTTP endpoint: OpenAI's chat completions, runs, and health."""

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

from deployments.handles import ask, stream
from deployments.metrics import replica_recorder, start_sampling
from deployments.replica import start_replica
from plato.answering import Answering
from plato.api import sse
from plato.api.errors import ModelNotFoundError, as_plato_error, error_body, error_headers
from plato.api.requests import parse_request, to_run_request
from plato.api.responses import ChatResponse
from plato.api.runs import RunResponse
from plato.assembly import ModelTools
from plato.errors import InvalidRequestError, PlatoError, UnavailableError
from plato.failover import follow_anywhere, resume_anywhere
from plato.metrics.table import REQUEST_ERRORS_TOTAL
from plato.runs import BEFORE_ALL, EventId, RunRequest, RunSnapshot
from plato.settings import Settings
from plato.streams import beating, listening

logger = logging.getLogger(__name__)

READY_DEADLINE_S = 5.0
CALL_DEADLINE_S = 5.0
RETRY_S = 0.1
MAX_BODY_BYTES = 4 << 20
PING_S = 10.0
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

api = FastAPI(title="Plato", docs_url=None, redoc_url=None)


@api.exception_handler(PlatoError)
async def _report(request: Request, error: PlatoError) -> JSONResponse:
    _note(error, request.url.path, getattr(request.state, "run", None))
    return JSONResponse(error_body(error), error.status, error_headers(error))


def _note(error: PlatoError, path: str, run: str | None) -> None:
    """Count and log an error that a client is told."""
    replica_recorder().add(REQUEST_ERRORS_TOTAL, code=error.code or "other")
    said = {"path": path, "status": error.status, "code": error.code, "error": error.message}
    logger.info("a client was told of an error", extra=said | ({"run": run} if run else {}))


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
    said = {"path": request.url.path, "run": getattr(request.state, "run", None)}
    logger.error("a request failed", exc_info=error, extra=said)
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


def _run_id(request: Request, name: str) -> str:
    """The run that a name means, its own or that of its chat completion; noted for the logs."""
    request.state.run = name.removeprefix("chatcmpl-")
    return str(request.state.run)


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
        self._recorder = replica_recorder()
        self._sampling = start_sampling()

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
        request.state.run = run.run
        answering = Answering(run, self._tools.text, self._recorder)
        response = ChatResponse(run.run, self._settings.model_name, body.include_usage)
        logger.info("run opened", extra={"run": run.run, "mode": run.mode, "stream": body.stream})
        if body.stream:
            return StreamingResponse(
                self._stream(run, answering, response, events=options.events),
                media_type=sse.MEDIA_TYPE,
                headers=STREAM_HEADERS,
            )
        async with aclosing(answering.follow(self._events(run))) as events:
            async for _ in events:
                pass
        answer = answering.answer()
        return Response(
            response.completion(answer),
            media_type="application/json",
        )

    @api.post("/v1/runs")
    async def open_run(self, request: Request) -> Response:
        """Start a run that goes on whoever follows it: 202, and the run."""
        body = parse_request(await _read(request), run=True)
        run = to_run_request(
            body,
            settings=self._settings,
            tenant=tenant_of(request.headers.get("authorization", "")),
            run_id=uuid.uuid4().hex,
        )
        request.state.run = run.run
        await self._call(
            "open", run, about=run.run, deadline_s=self._settings.patience_s + CALL_DEADLINE_S
        )
        logger.info("run opened", extra={"run": run.run, "mode": run.mode})
        opened = RunResponse(self._settings.model_name, Answering(run, self._tools.text)).run()
        location = {"Location": f"/v1/runs/{run.run}"}
        return Response(opened.model_dump_json(), 202, location, "application/json")

    @api.get("/v1/runs/{run}")
    async def run(self, request: Request, run: str) -> Response:
        """A run as it stands."""
        tenant = tenant_of(request.headers.get("authorization", ""))
        return self._described(await self._snapshot(tenant, _run_id(request, run)))

    @api.delete("/v1/runs/{run}")
    async def cancel_run(self, request: Request, run: str) -> Response:
        """Cancel a run, whoever drives it. One that has ended stays as it is."""
        tenant = tenant_of(request.headers.get("authorization", ""))
        name = _run_id(request, run)
        deadline_s = self._settings.failover_s + CALL_DEADLINE_S
        await self._call("cancel", tenant, name, about=name, deadline_s=deadline_s)
        return self._described(await self._snapshot(tenant, name))

    @api.get("/v1/runs/{run}/events")
    async def run_events(self, request: Request, run: str) -> Response:
        """The events of a run as they come; with Last-Event-ID, those behind it."""
        tenant = tenant_of(request.headers.get("authorization", ""))
        given = request.headers.get("last-event-id") or request.query_params.get("after")
        try:
            after = EventId.parse(given) if given else BEFORE_ALL
        except ValueError as error:
            raise InvalidRequestError(f"Last-Event-ID: {error}", param="last-event-id") from error
        snapshot = await self._snapshot(tenant, _run_id(request, run))
        return StreamingResponse(
            self._stream_events(snapshot.request, after),
            media_type=sse.MEDIA_TYPE,
            headers=STREAM_HEADERS,
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
                state: dict[str, Any] = await ask(self._scheduler.ready.remote)
        except Exception as error:
            reason = str(error) or "no answer in time"
            return JSONResponse({"status": "not ready", "reason": reason}, 503)
        return JSONResponse({"status": "ready", **state})

    def _events(self, run: RunRequest) -> AsyncGenerator[Any]:
        return follow_anywhere(self._drive, run, self._settings.failover_s)

    def _drive(self, run: RunRequest, history: Any) -> AsyncGenerator[Any]:
        """Have some scheduler drive `run`; one that falls silent counts as dead."""
        batches: AsyncGenerator[Any] = stream(lambda: self._streaming.run.remote(run, history))
        return listening(batches, self._settings.silence_s)

    async def _call(
        self, method: str, *arguments: Any, about: str, deadline_s: float = CALL_DEADLINE_S
    ) -> Any:
        """Ask any scheduler `about` a run, another when one fails, within a deadline."""
        handle = getattr(self._scheduler, method)
        try:
            async with asyncio.timeout(deadline_s) as timer:
                while True:
                    try:
                        return await ask(lambda: handle.remote(*arguments))
                    except PlatoError:
                        raise
                    except Exception as error:
                        # Its process has died, or is just about to.
                        logger.warning(
                            "asking another scheduler to %s: %r",
                            method,
                            error,
                            extra={"run": about},
                        )
                        await asyncio.sleep(RETRY_S)
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise UnavailableError(
                "no scheduler answers; try again in a moment", retry_after_s=2.0
            ) from error

    async def _snapshot(self, tenant: str, run: str) -> RunSnapshot:
        snapshot: RunSnapshot = await self._call("snapshot", tenant, run, about=run)
        return snapshot

    def _described(self, snapshot: RunSnapshot) -> Response:
        answering = Answering(snapshot.request, self._tools.text)
        for event in snapshot.events:
            answering.take(event)
        described = RunResponse(self._settings.model_name, answering).run()
        return Response(described.model_dump_json(), media_type="application/json")

    async def _resume(self, request: RunRequest, after: EventId) -> AsyncGenerator[Any]:
        """Events of a run from the scheduler that drives it, or any if that is not known."""
        owner = await self._call("owner", request.tenant, request.run, about=request.run)
        batches: AsyncGenerator[Any] = stream(
            lambda: self._streaming.follow.remote(request.tenant, request.run, after, replica=owner)
        )
        async with aclosing(listening(batches, self._settings.silence_s)) as heard:
            async for events in heard:
                yield events

    async def _stream_events(self, request: RunRequest, after: EventId) -> AsyncGenerator[bytes]:
        response = RunResponse(self._settings.model_name, Answering(request, self._tools.text))
        # From the start whatever the client has: what an event shows depends on those before it.
        events = resume_anywhere(
            lambda seen: self._resume(request, seen), request.run, self._settings.failover_s
        )
        try:
            async with aclosing(beating(events, PING_S)) as beats:
                async for batch in beats:
                    if batch is None:
                        yield sse.PING
                        continue
                    for event in batch:
                        if (told := response.take(event, after)) is not None:
                            yield told
        except Exception as error:
            if not isinstance(error, PlatoError):
                logger.exception("a stream of events failed", extra={"run": request.run})
            failure = as_plato_error(error)
            _note(failure, "/v1/runs/{run}/events", request.run)
            yield sse.event(json.dumps(error_body(failure)), name="error")

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
            told = as_plato_error(error)
            _note(told, "/v1/chat/completions", run.run)
            yield sse.event(json.dumps(error_body(told)))
            return
        yield sse.event(response.closing(answer))
        if response.include_usage:
            yield sse.event(response.usage(answer))
        yield sse.DONE

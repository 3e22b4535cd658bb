"""Passes requests on, and their answers back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from typing import TypeVar, cast

from starlette.requests import Request
from starlette.responses import Response

from plato.api.answers import sse
from plato.api.answers.disconnect import while_connected
from plato.api.answers.held_stream import BrokenOffError, HeldStream
from plato.api.drain import Drain
from plato.api.errors import ErrorReporter, error_text
from plato.api.manners import request_id
from plato.api.models import is_served
from plato.api.passthrough.decision import Endpoint, may_be_planned, wants_plato
from plato.api.passthrough.events import WholeEvents
from plato.api.passthrough.outgoing import Passed, read_fields
from plato.api.passthrough.record import PassRecord
from plato.api.passthrough.upstreams import Upstreams
from plato.api.questions.intake import Received
from plato.engine import UpstreamError
from plato.engine.openai.response import UpstreamResponse
from plato.errors import BadGatewayError, DeadlineError, InvalidRequestError
from plato.metrics import Recorder
from plato.runs.token_rates import TokenRates
from plato.settings import Settings
from plato.tasks import Interruption

logger = logging.getLogger(__name__)

Body = TypeVar("Body")
Items = AsyncGenerator[UpstreamResponse | bytes]
"""A response, and then the pieces of its body."""

PASSED_HEADERS = frozenset(
    {"content-type", "content-encoding", "content-length", "cache-control", "retry-after"}
)
PASSED_PREFIXES = ("openai-", "x-ratelimit-", "retry-after-")
"""Other headers are about a connection, or tell what this server decides."""
MAX_WHOLE = 1 << 20
"""Bytes of JSON that are held back until they are complete: then a failure has a status."""
ABSENT = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})


class AbsentPathError(Exception):
    """The upstream lacks a path that servers may lack; the answer is Plato's."""


class PassThrough:
    """Has upstreams answer what is not planned; with none, nothing is passed on."""

    def __init__(
        self,
        upstreams: Upstreams,
        settings: Settings,
        errors: ErrorReporter,
        recorder: Recorder,
        drain: Drain,
        *,
        thinks: bool,
    ) -> None:
        """`thinks`: whether the model does, if Plato does not keep it from it."""
        self._upstreams = upstreams
        self._settings = settings
        self._errors = errors
        self._recorder = recorder
        self._drain = drain
        self._thinks = thinks
        self._rates = TokenRates(settings.tenant_tokens_per_minute)

    async def respond_or_parse(
        self,
        request: Request,
        received: Received,
        endpoint: Endpoint,
        parse: Callable[[], Body],
    ) -> Response | Body:
        """The upstream's response, or the body as `parse` reads it, if the answer is Plato's.

        Raises what `respond` raises, and what `parse` raises, unless the upstream may accept it.
        """
        passed = self.passed(request, received) if self._upstreams else None
        if passed is None or wants_plato(passed.fields, endpoint):
            return parse()
        # What the upstream calls its model is no name of ours.
        named = is_served(passed.fields.get("model"), self._settings)
        if named and may_be_planned(passed.fields, endpoint):
            with suppress(InvalidRequestError):
                return parse()
        try:
            return await self.respond(request, received, passed, optional=endpoint.optional)
        except AbsentPathError:
            return parse()

    def passed(self, request: Request, received: Received) -> Passed | None:
        """The request as one to pass on; None if its body is no JSON object."""
        fields = read_fields(received.body)
        if fields is None:
            return None
        return Passed(request.url.path, fields, received.tenant, request_id(request.scope))

    def unplanned(
        self, request: Request, received: Received, endpoint: Endpoint
    ) -> Callable[[], Awaitable[Response]] | None:
        """Responds to a request that turned out to have no plan, where Plato would not do it well.

        Runs do not think, and lose nothing else. `None` where they lose nothing at all, and where
        the caller wants Plato's answer. The responder raises what `respond` raises.
        """
        passed = self.passed(request, received) if self._upstreams and self._thinks else None
        if passed is None or wants_plato(passed.fields, endpoint):
            return None

        async def respond() -> Response:
            # There is no run by whose id the answer could be found.
            del request.state.run
            identified = replace(passed, request_id=request_id(request.scope))
            return await self.respond(request, received, identified, optional=endpoint.optional)

        return respond

    async def respond(
        self, request: Request, received: Received, passed: Passed, *, optional: bool = False
    ) -> Response:
        """The upstream's response; `received.slot` is kept until its end.

        Raises a `PlatoError` if it does not answer, or the tenant has reached a limit, and
        `AbsentPathError` if it lacks an `optional` path.
        """
        head, items = await self._open(request, received, passed)
        if optional and head.status in ABSENT:
            await items.aclose()
            raise AbsentPathError(passed.path)
        return self._stream(received, head, items)

    async def _open(
        self, request: Request, received: Received, passed: Passed
    ) -> tuple[UpstreamResponse, Items]:
        """The upstream's response, as soon as it begins, and what follows."""
        self._drain.refuse_new()
        self._rates.require(passed.tenant)
        logger.info("request passed on", extra={"request": passed.request_id, "path": passed.path})
        items = self._answer(passed)
        try:
            async with while_connected(request):
                return cast(UpstreamResponse, await anext(items)), items
        except BaseException:
            await items.aclose()
            raise

    def _stream(self, received: Received, head: UpstreamResponse, items: Items) -> Response:
        return HeldStream(
            cast(AsyncGenerator[bytes], items),
            received.slot.pop_all(),
            self._settings.write_deadline_s,
            status_code=head.status,
            headers=_passed_back(head),
        )

    async def _answer(self, passed: Passed) -> Items:
        """The upstream's response and, piece by piece, its body.

        Raises a `PlatoError` before the response. An error in the middle of a stream of events is
        its last event; another body ends with `BrokenOffError`.
        """
        record = PassRecord(self._recorder, passed)
        events, begun = WholeEvents(), False
        try:
            with self._in_time() as answer:
                async with AsyncExitStack() as opened:
                    with answer:
                        response = await opened.enter_async_context(self._upstreams.open(passed))
                    record.begin(response.status)
                    in_events = _has_type(response, sse.MEDIA_TYPE)
                    piece = await _beginning(response, answer)
                    yield response
                    begun = True
                    piece = piece or await _next_piece(response, answer)
                    while piece:
                        record.feed(piece)
                        if whole := events.feed(piece) if in_events else piece:
                            yield whole
                        piece = await _next_piece(response, answer)
            if events.held:
                yield events.held
            record.complete()
        except Exception as error:
            record.outcome = "failed"
            if not begun:
                raise
            reported = self._errors.in_stream(error, passed.path, passed.request_id)
            if not in_events:
                raise BrokenOffError from error
            # What there is of an event that the upstream broke off in is left out.
            yield (b"\n\n" if events.within else b"") + sse.event(error_text(reported))
        finally:
            record.close()
            self._rates.charge(passed.tenant, record.tokens)

    @contextmanager
    def _in_time(self) -> Iterator[Interruption]:
        """An answer, whose waits are interrupted at its deadline, or when the server stops."""
        deadline_s = self._settings.run_deadline_s
        late = DeadlineError(
            f"the answer took longer than the deadline of {deadline_s:g} s; ask for fewer tokens"
        )
        with self._drain.answering() as answer:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(deadline_s, answer.interrupt, late)
            try:
                yield answer
            finally:
                timer.cancel()


async def _beginning(response: UpstreamResponse, answer: Interruption) -> bytes:
    """As much of a body as is held back. Raises a `PlatoError`."""
    content = bytearray()
    if _has_type(response, "application/json"):
        while len(content) < MAX_WHOLE and (piece := await _next_piece(response, answer)):
            content += piece
    return bytes(content)


async def _next_piece(response: UpstreamResponse, answer: Interruption) -> bytes:
    """What comes next of the body; nothing at its end. Raises a `PlatoError`."""
    try:
        with answer:
            return await response.read()
    except UpstreamError as error:
        raise BadGatewayError(
            "the upstream server broke off its answer; send the request again"
        ) from error


def _has_type(response: UpstreamResponse, media_type: str) -> bool:
    return response.headers.get("content-type", "").startswith(media_type)


def _passed_back(response: UpstreamResponse) -> dict[str, str]:
    """The headers that reach the client."""
    return {
        name: value
        for name, value in response.headers.items()
        if name.lower() in PASSED_HEADERS or name.lower().startswith(PASSED_PREFIXES)
    }

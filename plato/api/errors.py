"""Errors in OpenAI's shape: status, headers and body."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from plato.api.wire import AnswerModel
from plato.errors import AuthenticationError, BodyTimeoutError, InvalidRequestError, PlatoError
from plato.metrics import Recorder
from plato.metrics.table import REQUEST_ERRORS_TOTAL

logger = logging.getLogger(__name__)

_OWN_TYPES = frozenset({"invalid_type", "invalid_value", "unknown_parameter", "unsupported_value"})
"""Error types that `schemas` raises itself; their names are OpenAI's codes."""
_SHOULD = re.compile(r"\w+ (should .*?)(?: after validation, not \d+)?")
"""What pydantic says of a value: `List should have at least 1 item after validation, not 0`."""
_JSON_NAMES = {"model_type": "an object", "dict_type": "an object", "list_type": "an array"}
"""What those who write JSON call these types of Python."""
_ROUTER_CODES = {404: "not_found", 405: "method_not_allowed"}
MAX_OTHERS = 10
MAX_PARAM_CHARS = 100
MAX_MESSAGE_CHARS = 500
NOT_FOUND = 404
CLIENT_LEFT = 499
"""The status that nginx logs for it; the response is never read."""


def invalid_request(invalid: ValidationError) -> InvalidRequestError:
    """The first error in a body, with the path of its parameter; others are named."""
    errors = invalid.errors(include_url=False, include_input=False)
    first = _describe(errors[0])
    others = sorted({param for error in errors[1:] if (param := _describe(error).param)})
    others = [param for param in others if param != first.param]
    if others:
        more = ", ..." if len(others) > MAX_OTHERS else ""
        first.message += f" (also wrong: {', '.join(others[:MAX_OTHERS])}{more})"
        first.args = (first.message,)
    return first


@contextmanager
def in_callers_names(names: Mapping[str, str]) -> Iterator[None]:
    """Have errors name the parameters that the caller has used.

    `names` has them by the names that chat completions have for the same.
    """
    try:
        yield
    except PlatoError as error:
        name = names.get(error.param or "")
        if name is not None:
            error.message = error.message.replace(f"'{error.param}'", f"'{name}'")
            error.args = (error.message,)
            error.param = name
        raise


def as_plato_error(error: BaseException) -> PlatoError:
    """The error to send to the client; details of unexpected errors stay in the log."""
    if isinstance(error, PlatoError):
        return error
    return PlatoError("internal error; see the server's log")


class ErrorInfo(AnswerModel):
    """An error, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None
    """The parameter to change."""
    code: str | None

    @classmethod
    def of(cls, error: PlatoError) -> ErrorInfo:
        """Describe `error`."""
        return cls(message=error.message, type=error.type, param=error.param, code=error.code)


class ErrorBody(AnswerModel):
    """The body of a response, or the data of an event, that reports an error."""

    error: ErrorInfo

    @classmethod
    def of(cls, error: PlatoError) -> ErrorBody:
        """The body that reports `error`."""
        return cls(error=ErrorInfo.of(error))


def error_text(error: PlatoError) -> str:
    """The `ErrorBody` of `error`, as JSON."""
    return ErrorBody.of(error).model_dump_json()


def error_headers(error: PlatoError) -> dict[str, str]:
    """What a client is told to do: wait (whole seconds), authenticate, or connect again."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, AuthenticationError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, BodyTimeoutError):
        # Nobody waits for the rest, in front of the next request (RFC 9110, section 15.5.9).
        headers["Connection"] = "close"
    return headers


class ErrorReporter:
    """Reports errors to clients, counts them, and logs them."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @property
    def handlers(self) -> dict[Any, Any]:
        """Starlette's exception handlers, for all errors that can be expected."""
        return {
            PlatoError: self._respond,
            HTTPException: self._respond_http,
            ClientDisconnect: self._ignore_disconnect,
        }

    def in_stream(self, error: Exception, path: str, run_id: str) -> PlatoError:
        """Note an error that ends a stream; returns what to tell the client."""
        if not isinstance(error, PlatoError):
            logger.error("stream failed", exc_info=error, extra={"run": run_id})
        reported = as_plato_error(error)
        self._note(reported, path, run_id)
        return reported

    async def respond_unexpected(self, request: Request, error: Exception) -> Response:
        """The response in place of a handler that raised `error`, whose details are logged."""
        extra = {"path": request.url.path, "run": getattr(request.state, "run", None)}
        logger.error("request failed", exc_info=error, extra=extra)
        return await self._respond(request, as_plato_error(error))

    async def _respond(
        self, request: Request, error: PlatoError, headers: Mapping[str, str] | None = None
    ) -> Response:
        request.state.error = error.code
        self._note(error, request.url.path, getattr(request.state, "run", None))
        headers = {**error_headers(error), **(headers or {})}
        return ErrorBody.of(error).as_response(error.status, headers)

    async def _respond_http(self, request: Request, error: HTTPException) -> Response:
        """Errors of the router: an unknown path or a wrong method."""
        reason = error.detail
        if error.status_code == NOT_FOUND:
            # Not those of the page.
            routes = [each for each in request.app.routes if isinstance(each, Route)]
            paths = sorted(route.path for route in routes if route.include_in_schema)
            reason = f"there is no such path; this server has {', '.join(paths)}"
        elif error.headers is not None and "Allow" in error.headers:
            reason = f"this path does not take that method; it has {error.headers['Allow']}"
        reported = InvalidRequestError(
            f"{request.method} {request.url.path}: {reason}",
            code=_ROUTER_CODES.get(error.status_code, "not_found"),
        )
        reported.status = error.status_code
        return await self._respond(request, reported, error.headers)

    async def _ignore_disconnect(self, request: Request, error: ClientDisconnect) -> Response:
        """The client left before it had sent its body; not an error of the server."""
        return Response(status_code=CLIENT_LEFT)

    def _note(self, error: PlatoError, path: str, run_id: str | None) -> None:
        self._recorder.add(REQUEST_ERRORS_TOTAL, code=error.code or "other")
        extra = {"path": path, "status": error.status, "code": error.code, "error": error.message}
        logger.info("error response", extra=extra | ({"run": run_id} if run_id else {}))


def _describe(error: ErrorDetails) -> InvalidRequestError:
    kind, message, context = error["type"], error["msg"], error.get("ctx") or {}
    param = str(context.get("param") or ".".join(map(str, error["loc"])))
    if not param:
        return InvalidRequestError("the body must be a JSON object", code="invalid_type")
    code = kind if kind in _OWN_TYPES else "invalid_value"
    if kind == "missing":
        message, code = "is missing; add it", "missing_required_parameter"
    elif kind == "extra_forbidden":
        message, code = "is not a known parameter; remove it", "unknown_parameter"
    elif kind in _JSON_NAMES:
        message = f"should be {_JSON_NAMES[kind]}"
    elif (said := _SHOULD.fullmatch(message)) is not None:
        message = said[1]
    elif kind not in _OWN_TYPES:
        message = f"is invalid: {message}"
    if kind.endswith("_type"):
        code = "invalid_type"
    # Both can contain what the client has sent.
    param, message = _cut(param, MAX_PARAM_CHARS), _cut(message, MAX_MESSAGE_CHARS)
    return InvalidRequestError(f"'{param}' {message}", param=param, code=code)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."

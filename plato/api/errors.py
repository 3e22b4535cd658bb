"""Errors in OpenAI's shape: status, headers and body."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from plato.errors import InvalidRequestError, PlatoError
from plato.runs import RunFailed

_OWN_TYPES = frozenset({"invalid_type", "invalid_value", "unknown_parameter", "unsupported_value"})
"""Error types that `schemas` raises itself; their names are OpenAI's codes."""
_INPUT_SHOULD = "Input should "


class ModelNotFoundError(InvalidRequestError):
    """The request names a model that this deployment does not serve."""

    status = 404
    code = "model_not_found"


class RunError(PlatoError):
    """A run that failed elsewhere, as its last event told it."""

    def __init__(self, event: RunFailed) -> None:
        super().__init__(
            event.message, param=event.param, code=event.code, retry_after_s=event.retry_after_s
        )
        self.event = event
        self.status = event.status
        self.type = event.type

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.event,)


class ValidationErrors(Protocol):
    """Pydantic's `ValidationError`, or FastAPI's `RequestValidationError`."""

    def errors(self) -> Sequence[Any]:
        """One dict an error: `type`, `loc`, `msg` and perhaps `ctx`."""
        ...


def invalid_request(invalid: ValidationErrors) -> InvalidRequestError:
    """The first thing that is wrong with a body, as one error with the path of its parameter."""
    errors = invalid.errors()
    first = _describe(errors[0])
    others = sorted({param for error in errors[1:] if (param := _describe(error).param)})
    others = [param for param in others if param != first.param]
    if others:
        first.message += f" (also wrong: {', '.join(others)})"
        first.args = (first.message,)
    return first


def as_plato_error(error: BaseException) -> PlatoError:
    """What a client may be told about `error`; details of unexpected ones stay in the log."""
    if isinstance(error, PlatoError):
        return error
    return PlatoError("internal error; the server's log says more")


def error_body(error: PlatoError) -> dict[str, dict[str, str | None]]:
    """The JSON body of a response, or of an event in a stream, that reports `error`."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def error_headers(error: PlatoError) -> dict[str, str]:
    """Headers of a response that reports `error`: `Retry-After` in whole seconds, if known."""
    if error.retry_after_s is None:
        return {}
    return {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}


def _describe(error: Mapping[str, Any]) -> InvalidRequestError:
    kind: str = error["type"]
    message: str = error["msg"]
    context: Mapping[str, Any] = error.get("ctx") or {}
    loc: tuple[int | str, ...] = tuple(error["loc"])
    if loc[:1] == ("body",) and (len(loc) > 1 or kind != "extra_forbidden"):
        loc = loc[1:]  # FastAPI says where in the request it looked.
    if kind == "json_invalid":
        reason = context.get("error", message)
        return InvalidRequestError(f"the body is not valid JSON: {reason}", code="invalid_json")
    param = str(context.get("param") or ".".join(map(str, loc)))
    if not param:
        return InvalidRequestError("the body must be a JSON object", code="invalid_type")
    code = kind if kind in _OWN_TYPES else "invalid_value"
    if kind == "missing":
        message, code = "is missing; add it", "missing_required_parameter"
    elif kind == "extra_forbidden":
        message, code = "is not a known parameter; remove it", "unknown_parameter"
    elif message.startswith(_INPUT_SHOULD):
        message = message.removeprefix("Input ")
    elif kind not in _OWN_TYPES:
        message = f"is wrong: {message}"
    if kind.endswith("_type"):
        code = "invalid_type"
    return InvalidRequestError(f"'{param}' {message}", param=param, code=code)

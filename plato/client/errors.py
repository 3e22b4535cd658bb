"""The errors of a server in our hierarchy, and those of not reaching one."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

import httpx

from plato.errors import (
    DeadlineError,
    InvalidRequestError,
    OverloadedError,
    PlatoError,
    UnavailableError,
)


class UnreachableError(UnavailableError):
    """No server answers at the URL."""

    code = "unreachable"


def unreachable(base: str, error: Exception) -> UnreachableError:
    """Why there is no answer from the server at `base`, and what to do."""
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return UnreachableError(f"{base!r} is no URL of a server; write http://host:port")
    return UnreachableError(
        f"no answer from {base}: {reason_of(error)}; start a server with 'plato serve', or correct "
        "the URL"
    )


def reason_of(error: Exception) -> str:
    """Why a connection or an answer did not come."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there"
        if isinstance(cause, socket.gaierror):
            return "there is no host of this name"
        if isinstance(cause, ssl.SSLError):
            return f"no secure connection is possible ({cause.reason})"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return "it took too long"
    return f"the connection broke off ({type(error).__name__})"


def read_json(data: str) -> dict[str, Any]:
    """The object in the data of an event. Raises the error that it reports, or `ValueError`."""
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError(f"{data[:50]!r} is no object")
    if "error" in content:
        raise read_error(content["error"])
    return content


def read_error(
    fields: Mapping[str, Any], status: int = HTTPStatus.INTERNAL_SERVER_ERROR
) -> PlatoError:
    """An error in OpenAI's shape, of the class that has its code or else its status."""
    code = fields.get("code")
    kind = _BY_CODE.get(code)
    if kind is not None:
        return kind(fields["message"], param=fields.get("param"))
    error = _of_status(status, fields["message"])
    error.param, error.code = fields.get("param"), code or error.code
    return error


def refusal(response: httpx.Response) -> PlatoError:
    """The error that a response without success means; its content has been read."""
    status = response.status_code
    try:
        error = read_error(response.json()["error"], status)
    except (ValueError, LookupError, TypeError):
        error = _of_status(status, f"the server answered with status {status}")
    wait = response.headers.get("Retry-After", "")
    error.retry_after_s = float(wait) if wait.isdecimal() else None
    return error


def _of_status(status: int, message: str) -> PlatoError:
    refused = status < HTTPStatus.INTERNAL_SERVER_ERROR
    error = _BY_STATUS.get(status, InvalidRequestError if refused else PlatoError)(message)
    error.status = status
    return error


def _subclasses(kind: type[PlatoError]) -> Iterator[type[PlatoError]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


_BY_CODE = {
    kind.code: kind for kind in _subclasses(PlatoError) if kind.__module__ == PlatoError.__module__
}
_BY_STATUS: dict[int, type[PlatoError]] = {
    HTTPStatus.TOO_MANY_REQUESTS: OverloadedError,
    HTTPStatus.BAD_GATEWAY: UnavailableError,
    HTTPStatus.SERVICE_UNAVAILABLE: UnavailableError,
    HTTPStatus.GATEWAY_TIMEOUT: DeadlineError,
}

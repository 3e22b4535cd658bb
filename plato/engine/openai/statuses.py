"""What the statuses of servers mean, and what the bodies of errors say."""

from __future__ import annotations

import json
import re
from http import HTTPStatus

from plato.engine.errors import (
    ContextExceededError,
    EngineBusyError,
    EngineError,
    EngineUnreadyError,
    KeyRefusedError,
    NotServedError,
    RequestRefusedError,
    UpstreamError,
)

MAX_DETAIL_CHARS = 300
_ABOUT_THE_REQUEST = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)
_CONTEXT = re.compile(r"context[ _](length|size)", re.IGNORECASE)
"""In what OpenAI, vLLM, SGLang and llama.cpp say of prompts that are too long."""


def is_busy(status: int) -> bool:
    """Whether a server takes nothing for now, but is not away."""
    return status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def is_redirect(status: int) -> bool:
    """Whether a server says that something is elsewhere."""
    return HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST


def status_error(status: int, detail: str = "", retry_after_s: float | None = None) -> EngineError:
    """The error that a status other than success means.

    `detail` is what the server says. Clients are only told what is about their request.
    """
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return EngineBusyError(f"the server has no room: status {status}", retry_after_s)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return EngineUnreadyError(f"the server is not ready: status {status}", retry_after_s)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return KeyRefusedError("the server refuses Plato's key")
    if is_redirect(status):
        return UpstreamError(f"the server redirects with status {status}; correct upstreams")
    if status in _ABOUT_THE_REQUEST:
        kind = ContextExceededError if _CONTEXT.search(detail) else RequestRefusedError
        return kind(f"the server refuses the request: {detail or f'status {status}'}")
    if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return NotServedError(f"the server does not serve this: status {status}")
    return UpstreamError(f"the server failed with status {status}")


def error_detail(content: bytes | str) -> str:
    """The message in the body of an error, in OpenAI's, FastAPI's and llama.cpp's shapes.

    Empty if it has none, as in the HTML of a proxy.
    """
    try:
        found = json.loads(content)
    except ValueError:
        return ""
    while isinstance(found, dict):
        found = next((found[key] for key in ("error", "message", "detail") if key in found), "")
    return found[:MAX_DETAIL_CHARS] if isinstance(found, str) else ""

"""What all requests have in common, whatever they ask for: an id, no trailing slash, an answer."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plato.settings import Settings

REQUEST_ID = "x-request-id"
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
PREFLIGHT_S = 600
"""How long browsers remember that they may ask."""


def middleware(
    settings: Settings, respond_unexpected: Callable[[Request, Exception], Awaitable[Response]]
) -> list[Middleware]:
    """The middleware of the application; scripts of other origins may use it if it says so.

    `respond_unexpected` answers for a handler that raises what nobody expects.
    """
    manners = Middleware(Manners)
    # Starlette's own is outside of all others: a page could not read its responses.
    errors = Middleware(ServerErrorMiddleware, handler=respond_unexpected)
    if not settings.cors_origins:
        return [manners, errors]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "POST", "DELETE"],
        # Keys are sent as headers, not as cookies, so credentials need no permission.
        allow_headers=["*"],
        expose_headers=[REQUEST_ID, "Retry-After", "Location"],
        max_age=PREFLIGHT_S,
    )
    return [manners, cors, errors]


def request_id(scope: Scope) -> str:
    """The id of a request: that of its run, if it has one."""
    state = scope.setdefault("state", {})
    # A run that does not exist is called whatever the client likes.
    if _RUN_ID.fullmatch(state.get("run", "")):
        return str(state["run"])
    return str(state.setdefault("request_id", uuid.uuid4().hex))


class Manners:
    """Gives every response its id, and takes a path with a slash at its end for that without.

    A redirect instead would lose the body of a POST in many clients.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID] = request_id(scope)
            await send(message)

        # Before the copy, so that it is shared with it.
        scope.setdefault("state", {})
        path = scope["path"].rstrip("/") or "/"
        await self._app({**scope, "path": path}, receive, send_with_id)

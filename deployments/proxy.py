"""What the HTTP proxies of Ray Serve do besides their own; named in `deployments.local`."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plato.api.manners import REQUEST_ID


def middleware() -> list[Middleware]:
    """Called by every proxy when it starts (`RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`)."""
    return [Middleware(OneRequestId)]


class OneRequestId:
    """Keeps the id that the ingress gives a response; Serve appends one of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_one(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                first, *others = headers.getlist(REQUEST_ID) or [""]
                if others:
                    headers[REQUEST_ID] = first
            await send(message)

        await self._app(scope, receive, send_one)

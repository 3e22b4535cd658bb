"""Resources of the API: a path, with a handler for each method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plato.api.tenants import Tenants

Handler = Callable[[Request], Awaitable[Response]]


def resource(path: str, tenants: Tenants | None = None, **handlers: Handler) -> Route:
    """The route of `path`, with a handler by each method (`GET=...`).

    With `tenants`, handlers are called only for requests that are of one (`tenant_of`). HEAD is
    answered like GET, else with the methods that there are, as OPTIONS is.
    """
    methods = sorted({*handlers, "HEAD", "OPTIONS"})

    async def handle(request: Request) -> Response:
        handler = handlers.get(request.method)
        if handler is None and request.method == "HEAD":
            handler = handlers.get("GET")
        if handler is None:
            return Response(status_code=204, headers={"Allow": ", ".join(methods)})
        if tenants is not None:
            request.state.tenant = tenants.of(request)
        return await handler(request)

    return Route(path, handle, methods=methods)

"""Resources of the API: a path, with a handler for each method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from plato.api.access.tenants import Tenants

Handler = Callable[[Request], Awaitable[Response]]


class Resource(Route):
    """A path, with a handler by each method (`GET=...`).

    With `tenants`, handlers are called only for requests that are of one (`tenant_of`). HEAD is
    answered like GET, else with the methods that there are, as OPTIONS is.
    """

    def __init__(self, path: str, tenants: Tenants | None = None, **handlers: Handler) -> None:
        self.handlers = handlers
        self.tenants = tenants
        self._allowed = sorted({*handlers, "HEAD", "OPTIONS"})
        super().__init__(path, self._handle, methods=self._allowed)

    async def _handle(self, request: Request) -> Response:
        handler = self.handlers.get(request.method)
        if handler is None and request.method == "HEAD":
            handler = self.handlers.get("GET")
        if handler is None:
            return Response(status_code=204, headers={"Allow": ", ".join(self._allowed)})
        if self.tenants is not None:
            request.state.tenant = self.tenants.of(request)
        return await handler(request)

"""The HTTP API over a runtime: through ASGI, and on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import uvicorn

from plato.api.app import new_app
from plato.api.passthrough import Upstreams
from plato.api.service import RunService
from plato.metrics import NO_METRICS, Recorder
from plato.settings import Settings

if TYPE_CHECKING:
    from plato.tracing.tracing import Tracing


def connect(
    service: RunService, settings: Settings, recorder: Recorder = NO_METRICS
) -> httpx.AsyncClient:
    """A client of the application; a response is there once all of it is."""
    # Starlette raises what it has answered with a 500, for the server to log.
    app = new_app(service, settings, recorder)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://plato")


@asynccontextmanager
async def serving(
    service: RunService,
    settings: Settings,
    recorder: Recorder = NO_METRICS,
    upstreams: Upstreams | None = None,
    tracing: Tracing | None = None,
) -> AsyncIterator[str]:
    """A server on a free port of this machine; gives its URL."""
    app = new_app(service, settings, recorder, upstreams=upstreams, tracing=tracing)
    config = uvicorn.Config(app, port=0, log_level="error")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await task

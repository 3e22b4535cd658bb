"""A real HTTP server on a port of this machine, which a test can stop and start again."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.applications import Starlette


class HttpServer:
    """Serves one application, always on the same port."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        config = uvicorn.Config(
            self._app, port=self._port, log_level="critical", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._server.serve())
        async with asyncio.timeout(10):
            while not self._server.started:  # noqa: ASYNC110 - uvicorn sets no event
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop at once: open streams break off."""
        if self._server is None or self._task is None:
            return
        self._server.force_exit = self._server.should_exit = True
        for connection in list(self._server.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        await self._task
        self._server = None

"""Clients that leave, and proxies that die."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from plato.tasks import Interruption, end_task

logger = logging.getLogger(__name__)


async def until_client_leaves(receive: Receive) -> None:
    """Return when the client has disconnected; cancel this when its response has ended.

    If the proxy has died, nobody knows whether the client wants its answer: this never returns,
    so the answer goes on, and can be had by its id.
    """
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except Exception as error:
        # Serve raises the error of the proxy's process.
        logger.warning("proxy lost, its answers go on: %s", type(error).__name__)
        await asyncio.Event().wait()


@asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Interrupt the block with `ClientDisconnect` when the client disconnects.

    For responses that are not streamed: nothing else notices that nobody waits for them.
    """
    block = Interruption()
    watching = asyncio.create_task(_interrupt_on_disconnect(request, block))
    try:
        with block:
            yield
    finally:
        await end_task(watching)


async def _interrupt_on_disconnect(request: Request, block: Interruption) -> None:
    await until_client_leaves(request.receive)
    block.interrupt(ClientDisconnect())

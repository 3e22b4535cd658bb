"""Clients that leave, and proxies that die."""

from __future__ import annotations

import asyncio
import logging

from starlette.types import Receive

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

"""The owner of the embedded Valkey, used if no shared store is configured."""

from __future__ import annotations

import asyncio
import logging

import ray
from ray import serve

from deployments.replica import start_replica
from plato.context.embedded import EmbeddedValkey
from plato.errors import SettingsError
from plato.settings import Settings

logger = logging.getLogger(__name__)


@serve.deployment
class StoreOwner:
    """Starts a Valkey on the loopback interface; it ends with this replica."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc]
        """Start the server. Raises `SettingsError` if other Ray nodes could not reach it."""
        start_replica(settings)
        nodes = sum(1 for node in ray.nodes() if node["Alive"])
        if nodes > 1:
            raise SettingsError(
                f"the cluster has {nodes} Ray nodes, but the embedded Valkey is reachable from one "
                "only; set PLATO_REDIS_URL to a Redis or Valkey that all of them can reach"
            )
        self._server = EmbeddedValkey()
        self._url = await asyncio.to_thread(self._server.start)

    async def url(self) -> str:
        """URL of the server, including the password."""
        return self._url

    async def check_health(self) -> None:
        """Restart the server, empty and with the same URL, if it has died."""
        if self._server.pid is None:
            logger.warning("the embedded Valkey has died, restarting it")
            await asyncio.to_thread(self._server.start)

    def __del__(self) -> None:
        """Called by Serve on a graceful shutdown."""
        server = getattr(self, "_server", None)
        if server is not None:
            server.close()

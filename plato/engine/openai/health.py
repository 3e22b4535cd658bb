"""Whether a server is well, and what it is after an outage."""

from __future__ import annotations

import logging

from plato.engine.errors import EngineBusyError, RequestRefusedError, UpstreamError
from plato.engine.openai.client import UpstreamClient
from plato.engine.openai.config import UpstreamConfig
from plato.engine.openai.connection import Connection, connect

logger = logging.getLogger(__name__)

DEADLINE_S = 2.0


class Health:
    """Of one server, as its client sees it. Changes are logged."""

    def __init__(self, client: UpstreamClient, config: UpstreamConfig) -> None:
        self._client = client
        self._config = config
        self._outages = 0
        """Of those that the client counts, the ones after which it was asked what it is."""
        self._well = True

    async def check(self, connection: Connection) -> Connection | None:
        """Ask a server whether it is well; returns the new connection after an outage.

        Raises `EngineError` if it came back as another server.
        """
        try:
            await self._client.ping(connection.dialect.health, DEADLINE_S)
            found = await self._reconnect()
        except (UpstreamError, EngineBusyError, RequestRefusedError) as error:
            if self._well:
                logger.warning("%s: %s", self._config.url, error)
            self._well = False
            return None
        if not self._well:
            logger.info("%s is well again", self._config.url)
        self._well = True
        return found

    async def _reconnect(self) -> Connection | None:
        outages = self._client.outages
        if outages == self._outages:
            return None
        found = await connect(self._client, self._config)
        self._outages = outages
        return found

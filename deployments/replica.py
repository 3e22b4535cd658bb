"""Start-up shared by all replicas."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.handles import ask
from plato.context import ContextStore
from plato.context.redis import RedisContextStore
from plato.logs import configure_logs
from plato.settings import Settings

logger = logging.getLogger(__name__)

HEARTBEATS = 4
"""Heartbeats per `silence_s`."""

START_DEADLINE_S = 60.0
OWNER_INTERVAL_S = 1.0
"""How often a process that does not reach the embedded store asks where it is."""
OWNER_DEADLINE_S = 5.0


async def open_replica_store(
    settings: Settings, fingerprint: str, owner: DeploymentHandle[Any] | None
) -> ContextStore:
    """The context store: the configured one, or the embedded one of its `owner`."""
    # Late: it imports everything that a scheduler needs, and the store's owner needs nothing of it.
    from plato.assembly import open_store

    app = serve.get_replica_context().app_name
    if settings.redis_url is not None:
        return await open_store(settings, fingerprint, app=app)
    if owner is None:
        raise AssertionError("no store URL is set, and there is no embedded store")
    async with asyncio.timeout(START_DEADLINE_S):
        url = await owner.url.remote()
    store = await open_store(settings, fingerprint, url=url, app=app)
    # For as long as this process lives; the event loop keeps only weak references to tasks.
    following = asyncio.create_task(_follow_owner(store, owner, url), name="follow-store")
    _following.add(following)
    return store


_following: set[asyncio.Task[None]] = set()


async def _follow_owner(store: ContextStore, owner: DeploymentHandle[Any], url: str) -> None:
    """Reconnect the store whenever its owner was replaced, with a server at another URL."""
    assert isinstance(store, RedisContextStore)
    while True:
        await asyncio.sleep(OWNER_INTERVAL_S)
        if store.available:
            continue
        try:
            async with asyncio.timeout(OWNER_DEADLINE_S):
                current: str = await ask(owner.url.remote)
        except Exception as error:
            logger.info("the owner of the context store does not answer: %r", error)
            continue
        if current != url:
            logger.warning("the context store was replaced, reconnecting")
            url = current
            await store.reconnect(url)
        await store.ping()


def own_deployment() -> DeploymentHandle[Any]:
    """A handle to the calling replica's own deployment: its peers and itself."""
    context = serve.get_replica_context()
    handle: DeploymentHandle[Any] = serve.get_deployment_handle(
        context.deployment, context.app_name
    )
    return handle


def start_replica(settings: Settings) -> str:
    """Configure logging; returns the replica's name, unique in the application."""
    context = serve.get_replica_context()
    name: str = context.replica_id.unique_id
    configure_logs(settings.log_level, deployment=context.deployment, replica=name)
    return name

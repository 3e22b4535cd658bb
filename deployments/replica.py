"""Start-up shared by all replicas."""

from __future__ import annotations

import asyncio
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from plato.context import ContextStore
from plato.logs import configure_logs
from plato.settings import Settings

HEARTBEATS = 4
"""Heartbeats per `silence_s`."""

START_DEADLINE_S = 60.0


async def open_store(settings: Settings, owner: DeploymentHandle[Any] | None) -> ContextStore:
    """The context store: the configured one, or the embedded one of its `owner`."""
    url = settings.redis_url
    if url is None:
        if owner is None:
            raise AssertionError("no store URL is set, and there is no embedded store")
        async with asyncio.timeout(START_DEADLINE_S):
            url = await owner.url.remote()
    # Late: it imports everything that a scheduler needs, and the store's owner needs nothing of it.
    from plato.assembly import new_store

    return new_store(settings, url)


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

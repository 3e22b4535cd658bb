"""Implements the protocols of `plato` over the Serve handles of other deployments."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar, cast

from ray.exceptions import RayError, RayTaskError
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator

from deployments.membership import known_replicas
from deployments.raised import Raised, unwrap
from plato.engine import (
    Chunk,
    EngineStats,
    GenerateRequest,
    KVEventBatch,
    Replica,
    ReplicaStatus,
    replica_status,
)
from plato.errors import UnavailableError
from plato.patience import Patience
from plato.planning.protocol import PlanEvent, PlanRequest
from plato.streams import with_heartbeat

T = TypeVar("T")

STATUS_DEADLINE_S = 2.0
"""For a decoder to say how it is."""


def detached(call: Callable[[], T]) -> T:
    """Make a handle call outside the current request's context.

    Calls within one request share Serve's internal request id, by which routers look up pending
    requests: one of several concurrent calls can get the replica chosen for another, or none. An
    empty context gives every call its own id, but cancellation no longer cascades.
    """
    return contextvars.Context().run(call)


def is_fault(error: Exception) -> bool:
    """Whether the code of a replica raised an error of `ask` or `stream`.

    A replica that has died raises others, and what it raised may be that another one has died.
    """
    return isinstance(error.__cause__, RayTaskError) and not isinstance(error, RayError)


async def ask(call: Callable[[], DeploymentResponse[T]]) -> T:
    """The result of a handle call. Raises the exception of the remote process."""
    try:
        result: T = await detached(call)
    except RayTaskError as error:
        # The text of a RayTaskError is a remote traceback; its cause has the useful message.
        raise error.cause from error
    return unwrap(result)


async def stream(
    call: Callable[[], DeploymentResponseGenerator[T | None]],
    *,
    is_last: Callable[[T], bool] = lambda _: False,
    patience: Patience | None = None,
    abandoned_s: float = 0.0,
) -> AsyncGenerator[T]:
    """The items of a streaming handle call; closing the generator cancels the call.

    After an item that `is_last` there is nothing to cancel. With `patience` the remote side sends
    heartbeats (empty items, which are dropped), and `UnavailableError` is raised if it is silent
    for too long; the time that the consumer spends on an item does not count. A call that was
    silent is cancelled `abandoned_s` later.
    """
    response = detached(call)
    watch = None if patience is None else patience.watch()
    cancel_in_s: float | None = 0.0
    items = _items(response)
    if watch is not None:
        items = with_heartbeat(items, lambda: watch.left_s)
    try:
        async with aclosing(items):
            async for item in items:
                if watch is not None and item is not None:
                    watch.heard()
                if isinstance(item, Raised):
                    cancel_in_s = None
                    raise item.error
                if item is None and watch is not None and patience is not None:
                    # If there is time left, this process was late itself.
                    if watch.left_s <= 0:
                        cancel_in_s = abandoned_s
                        raise UnavailableError(
                            f"no heartbeat from the other process for {patience.limit_s:.2g} s",
                            retry_after_s=1.0,
                        )
                elif item:
                    if is_last(cast(T, item)):
                        cancel_in_s = None
                    yield cast(T, item)
                    if watch is not None:
                        watch.restart()
        cancel_in_s = None
    except RayTaskError as error:
        # As in `ask`. Must come first: a RayTaskError is also an instance of its cause's type.
        raise error.cause from error
    finally:
        if cancel_in_s:
            asyncio.get_running_loop().call_later(cancel_in_s, response.cancel)
        elif cancel_in_s is not None:
            response.cancel()


async def _items(response: DeploymentResponseGenerator[Any]) -> AsyncGenerator[Any]:
    """The items of a response; an empty one is `()`."""
    async for item in response:
        yield item or ()


class ServeDecoderPool:
    """Decoder replicas behind a Serve handle whose router is `PlacedRouter`."""

    remote = True

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._streaming = handle.options(stream=True)

    def replicas(self) -> tuple[Replica, ...]:
        """The running replicas, as known to the router of this process."""
        return tuple(Replica(name) for name in known_replicas(self._handle.deployment_name))

    def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """Decode on the first of `ranked` that is running and has room, else on any."""
        return stream(
            lambda: self._streaming.generate.remote(request, replica=ranked),
            is_last=lambda chunk: chunk.finish is not None,
        )

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """Renew `owner`'s lease at one replica. Raises `UnavailableError` if it is gone."""
        answered: str = await ask(lambda: self._handle.renew.remote(owner, ttl_s, replica=replica))
        if answered != replica:
            # The router uses another replica if the named one is gone or full.
            raise UnavailableError(f"decoder {replica} does not respond")

    async def kv_snapshot(self, replica: str) -> tuple[str, KVEventBatch]:
        """Epoch and stored prefixes of one replica. Raises `UnavailableError` if it is gone."""
        found: tuple[str, str, KVEventBatch] = await ask(
            lambda: self._handle.kv_snapshot.remote(replica=replica)
        )
        answered, epoch, snapshot = found
        if answered != replica:
            raise UnavailableError(f"decoder {replica} does not respond")
        return epoch, snapshot

    async def status(self, replica: str) -> ReplicaStatus:
        """Whether one replica decodes."""
        try:
            async with asyncio.timeout(STATUS_DEADLINE_S):
                stats: EngineStats = await ask(lambda: self._handle.stats.remote(replica=replica))
        except Exception as error:
            return replica_status(replica, error)
        return replica_status(replica, stats)

    async def release(self, run_id: str, replica: str) -> None:
        """Drop the pins of a run at one replica."""
        await ask(lambda: self._handle.release.remote(run_id, replica=replica))


class ServePlanner:
    """The planner deployment behind a Serve handle."""

    def __init__(self, handle: DeploymentHandle[Any], silence_s: float) -> None:
        self._streaming = handle.options(stream=True)
        self._patience = Patience(silence_s)

    def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent]:
        """Decode a plan; closing the generator cancels it."""
        return stream(lambda: self._streaming.plan.remote(request), patience=self._patience)

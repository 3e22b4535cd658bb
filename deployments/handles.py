"""Implements the protocols of `plato` over the Serve handles of other deployments."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar, cast

from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator

from deployments.membership import known_replicas
from deployments.raised import Raised, unwrap
from plato.engine import Chunk, GenerateRequest, KVEventBatch, Replica
from plato.errors import UnavailableError
from plato.planning.protocol import PlanEvent, PlanRequest

T = TypeVar("T")


def detached(call: Callable[[], T]) -> T:
    """Make a handle call outside the current request's context.

    Calls within one request share Serve's internal request id, by which routers look up pending
    requests: one of several concurrent calls can get the replica chosen for another, or none. An
    empty context gives every call its own id, but cancellation no longer cascades.
    """
    return contextvars.Context().run(call)


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
    silence_s: float | None = None,
) -> AsyncGenerator[T]:
    """The items of a streaming handle call; closing the generator cancels the call.

    After an item that `is_last` there is nothing to cancel. With `silence_s` the remote side sends
    heartbeats (empty items, which are dropped), and `UnavailableError` is raised if nothing arrives
    for this long; the time that the consumer spends on an item does not count.
    """
    response = detached(call)
    ended = False
    try:
        while True:
            # Around one step only: while this generator is suspended in a `yield`, the timeout
            # would cancel the consumer's await.
            async with asyncio.timeout(silence_s) as timer:
                item = await anext(response, _END)
            if item is _END:
                ended = True
                return
            if isinstance(item, Raised):
                ended = True
                raise item.error
            if item:
                ended = is_last(cast(T, item))
                yield cast(T, item)
    except RayTaskError as error:
        # As in `ask`. Must come first: a RayTaskError is also an instance of its cause's type.
        raise error.cause from error
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise UnavailableError(
            f"no heartbeat from the other process for {silence_s:g} s", retry_after_s=1.0
        ) from error
    finally:
        if not ended:
            response.cancel()


_END = object()


class ServeDecoderPool:
    """Decoder replicas behind a Serve handle whose router is `PlacedRouter`."""

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

    async def release(self, run_id: str, replica: str) -> None:
        """Drop the pins of a run at one replica."""
        await ask(lambda: self._handle.release.remote(run_id, replica=replica))


class ServePlanner:
    """The planner deployment behind a Serve handle."""

    def __init__(self, handle: DeploymentHandle[Any], silence_s: float) -> None:
        self._streaming = handle.options(stream=True)
        self._silence_s = silence_s

    def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent]:
        """Decode a plan; closing the generator cancels it."""
        return stream(lambda: self._streaming.plan.remote(request), silence_s=self._silence_s)

"""Implements the protocols of `plato` over the Serve handles of other deployments."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar, cast

from ray.exceptions import RayError, RayTaskError
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator

from deployments.membership import known_replicas
from deployments.raised import Raised, unwrap
from plato.engine import Chunk, GenerateRequest, KVEventBatch, Replica
from plato.errors import UnavailableError
from plato.patience import Patience
from plato.planning.protocol import PlanEvent, PlanRequest

T = TypeVar("T")

ABANDONED_S = 10.0
"""When a call that was silent is cancelled."""


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
) -> AsyncGenerator[T]:
    """The items of a streaming handle call; closing the generator cancels the call.

    After an item that `is_last` there is nothing to cancel. With `patience` the remote side sends
    heartbeats (empty items, which are dropped), and `UnavailableError` is raised if it is silent
    for too long; the time that the consumer spends on an item does not count.

    A call that was silent is cancelled later: if its process was only late, the caller has joined
    the same work again by then, and must not lose it to the call that it has given up.
    """
    response = detached(call)
    watch = None if patience is None else patience.watch()
    cancel_in_s = 0.0
    next_item: asyncio.Task[Any] | None = None
    try:
        while True:
            # In a task of its own, so that waiting for it can end without cancelling it.
            next_item = next_item or asyncio.ensure_future(_next(response))
            await asyncio.wait([next_item], timeout=None if watch is None else watch.left_s)
            if not next_item.done():
                assert watch is not None
                assert patience is not None
                if watch.left_s > 0:
                    # This process was late itself.
                    continue
                cancel_in_s = ABANDONED_S
                raise UnavailableError(
                    f"no heartbeat from the other process for {patience.limit_s:.2g} s",
                    retry_after_s=1.0,
                )
            item, next_item = next_item.result(), None
            if watch is not None:
                watch.heard()
            if item is _END:
                response = None
                return
            if isinstance(item, Raised):
                response = None
                raise item.error
            if item:
                if is_last(cast(T, item)):
                    response = None
                yield cast(T, item)
                if watch is not None:
                    watch.restart()
    except RayTaskError as error:
        # As in `ask`. Must come first: a RayTaskError is also an instance of its cause's type.
        raise error.cause from error
    finally:
        if next_item is not None:
            next_item.cancel()
            next_item.add_done_callback(_forget)
        if response is not None:
            _cancel(response, cancel_in_s)


def _forget(task: asyncio.Task[Any]) -> None:
    """Take the outcome of a task that nobody waits for: asyncio would log it."""
    if not task.cancelled():
        task.exception()


def _cancel(response: DeploymentResponseGenerator[Any], in_s: float) -> None:
    if in_s:
        asyncio.get_running_loop().call_later(in_s, response.cancel)
    else:
        response.cancel()


async def _next(response: DeploymentResponseGenerator[Any]) -> Any:
    """The next item of a response, or `_END`."""
    return await anext(response, _END)


_END = object()


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

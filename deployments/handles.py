"""What the scheduler and the planner see of other deployments: protocols over Serve handles."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle, DeploymentResponse, DeploymentResponseGenerator

from deployments.membership import known_replicas
from plato.engine import Chunk, GenerateRequest, KVEventBatch, Replica
from plato.errors import UnavailableError
from plato.planning.protocol import PlanEvent, PlanRequest
from plato.streams import listening

T = TypeVar("T")


def detached(call: Callable[[], T]) -> T:
    """Make a handle call outside of the current request's context.

    Calls from within one request share Serve's internal request id, and routers look pending
    requests up by it: of siblings sent at the same moment one can get the replica that was chosen
    for another, or none. An empty context gives every call an id of its own. Cancellation does
    not cascade then; `stream` cancels explicitly.
    """
    return contextvars.Context().run(call)


async def ask(call: Callable[[], DeploymentResponse[T]]) -> T:
    """The answer of a handle call. Raises what was raised there."""
    try:
        return await detached(call)
    except RayTaskError as error:
        # Its own text is the traceback of another process; what was raised there says what to do.
        raise error.cause from error


async def stream(
    call: Callable[[], DeploymentResponseGenerator[T]],
    is_last: Callable[[T], bool] = lambda _: False,
) -> AsyncGenerator[T]:
    """The items of a streaming handle call; closing the generator cancels the call.

    Leaving a handle's stream without `cancel` lets the other side run on. After an item that
    `is_last` there is nothing to cancel.
    """
    response = detached(call)
    ended = False
    try:
        async for item in response:
            ended = is_last(item)
            yield item
        ended = True
    except RayTaskError as error:
        raise error.cause from error  # As in `ask`.
    finally:
        if not ended:
            response.cancel()


class ServeDecoderPool:
    """Decoder replicas behind a Serve handle whose router is `PlacedRouter`."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._streaming = handle.options(stream=True)

    def replicas(self) -> tuple[Replica, ...]:
        """What this process's router knows to be running."""
        return tuple(Replica(name) for name in known_replicas(self._handle.deployment_name))

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """Decode on the first of `ranked` that is there and has room, else on any."""
        chunks: AsyncGenerator[Chunk] = stream(
            lambda: self._streaming.generate.remote(request, replica=ranked),
            is_last=lambda chunk: chunk.finish is not None,
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """Renew `owner`'s lease at one replica. Raises `UnavailableError` if it is not there."""
        answered: str = await ask(lambda: self._handle.renew.remote(owner, ttl_s, replica=replica))
        if answered != replica:
            # The router takes another where the one that was named does not answer.
            raise UnavailableError(f"decoder {replica} does not answer")

    async def kv_snapshot(self, replica: str) -> tuple[str, KVEventBatch]:
        """Epoch and stored prefixes of one replica. Raises `UnavailableError` if it is away."""
        found: tuple[str, str, KVEventBatch] = await ask(
            lambda: self._handle.kv_snapshot.remote(replica=replica)
        )
        answered, epoch, snapshot = found
        if answered != replica:
            raise UnavailableError(f"decoder {replica} does not answer")
        return epoch, snapshot

    async def release(self, run: str, replica: str) -> None:
        """Drop the pins that sequences of `run` have left at one replica."""
        await ask(lambda: self._handle.release.remote(run, replica=replica))


class ServePlanner:
    """The planner deployment behind a Serve handle."""

    def __init__(self, handle: DeploymentHandle[Any], silence_s: float) -> None:
        self._streaming = handle.options(stream=True)
        self._silence_s = silence_s

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent]:
        """Decode a plan; closing the generator cancels it."""
        beats: AsyncGenerator[PlanEvent | None] = stream(
            lambda: self._streaming.plan.remote(request)
        )
        heard: AsyncGenerator[PlanEvent] = listening(beats, self._silence_s)
        async with aclosing(heard) as events:
            async for event in events:
                yield event

"""What the scheduler and the planner see of other deployments: protocols over Serve handles."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from deployments.membership import known_replicas
from plato.engine import Chunk, GenerateRequest
from plato.planning.protocol import PlanEvent, PlanRequest
from plato.scheduling.protocol import Replica

T = TypeVar("T")


def detached(call: Callable[[], T]) -> T:
    """Make a handle call outside of the current request's context.

    Calls from within one request share Serve's internal request id, and routers look pending
    requests up by it: of siblings sent at the same moment one can get the replica that was chosen
    for another, or none. An empty context gives every call an id of its own. Cancellation does
    not cascade then; `stream` cancels explicitly.
    """
    return contextvars.Context().run(call)


async def stream(call: Callable[[], DeploymentResponseGenerator[T]]) -> AsyncGenerator[T]:
    """The items of a streaming handle call; closing the generator cancels the call.

    Leaving a handle's stream without `cancel` lets the other side run on.
    """
    response = detached(call)
    ended = False
    try:
        async for item in response:
            yield item
        ended = True
    except RayTaskError as error:
        # Its own text is the traceback of another process; what was raised there says what to do.
        raise error.cause from error
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
        self, request: GenerateRequest, replica: str | None = None
    ) -> AsyncGenerator[Chunk]:
        """Decode on `replica` if it is there and has room, else on another."""
        chunks: AsyncGenerator[Chunk] = stream(
            lambda: self._streaming.generate.remote(request, replica=replica)
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """Renew `owner`'s lease at one replica."""
        await detached(lambda: self._handle.renew.remote(owner, ttl_s, replica=replica))

    async def release(self, run: str, replica: str) -> None:
        """Drop the pins that sequences of `run` have left at one replica."""
        await detached(lambda: self._handle.release.remote(run, replica=replica))


class ServePlanner:
    """The planner deployment behind a Serve handle."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._streaming = handle.options(stream=True)

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent]:
        """Decode a plan; closing the generator cancels it."""
        events: AsyncGenerator[PlanEvent] = stream(lambda: self._streaming.plan.remote(request))
        async with aclosing(events):
            async for event in events:
                yield event

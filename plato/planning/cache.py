"""Plans that are kept, for questions that are asked again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing

from plato.planning.protocol import (
    PlanEnded,
    PlanEvent,
    PlanLine,
    Planner,
    PlanRequest,
    PlanStarted,
    PlanUsage,
)


class PlanCache:
    """A planner that plans the same question of a tenant once.

    Plans are greedy, so a kept one is what the model would write again, and the answer is the same.
    """

    def __init__(self, planner: Planner, size: int) -> None:
        """`size` plans are kept, those that were used last."""
        self._planner = planner
        self._size = size
        self._plans: OrderedDict[bytes, list[PlanEvent]] = OrderedDict()

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent, None]:
        """See `Planner.plan`; a kept plan costs nothing and names no replica."""
        key = _key(request)
        if key in self._plans:
            self._plans.move_to_end(key)
            for event in tuple(self._plans[key]):
                yield event
            return
        kept: list[PlanEvent] = []
        stream = self._planner.plan(request)
        async with aclosing(stream):
            async for event in stream:
                match event:
                    case PlanLine():
                        kept.append(PlanLine(event.node, _free(event.usage), event.emitted))
                    case PlanEnded():
                        kept.append(PlanEnded(event.split, _free(event.usage), None, event.refused))
                        if event.reason is None and not request.emitted and not request.script:
                            self._keep(key, kept)
                    case PlanStarted():
                        pass
                yield event

    def _keep(self, key: bytes, events: list[PlanEvent]) -> None:
        self._plans[key] = events
        if len(self._plans) > self._size:
            self._plans.popitem(last=False)


def _free(usage: PlanUsage) -> PlanUsage:
    """What is known of a plan without its cost."""
    return PlanUsage(one_probability=usage.one_probability)


def _key(request: PlanRequest) -> bytes:
    """What a plan depends on. A digest, because questions can be long."""
    asked = (
        request.tenant,
        request.messages,
        request.parts,
        request.decide,
        request.dependencies,
        request.emitted,
        request.script,
    )
    return hashlib.blake2b(repr(asked).encode(), digest_size=16).digest()

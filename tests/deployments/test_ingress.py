"""What an ingress does when schedulers die, refuse or fall silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError

from deployments.ingress import ServeRunService
from plato.engine import SamplingParams
from plato.errors import RunNotFoundError
from plato.runs import (
    EventId,
    Mode,
    ModeChosen,
    RunEvents,
    RunFinished,
    RunRequest,
    RunSnapshot,
    RunState,
)
from plato.runs.failover import MAX_FAULTS
from plato.settings import Settings
from tests.deployments.calls import Response

REQUEST = RunRequest("r1", (), Mode.PLATO, SamplingParams(), max_nodes=8, deadline_s=60.0)
SETTINGS = Settings().model_copy(update={"silence_s": 0.1})
CHOSEN = ModeChosen("r1", 0.1, Mode.PLATO, id=EventId(1, 0), text="It ", text_offset=0)
FINISHED = RunFinished(
    "r1", 0.2, RunState(REQUEST).report(), id=EventId(2, 0), text="It is.", text_offset=0
)


def service(**methods: Any) -> ServeRunService:
    """A service over a scheduler with these methods."""
    remote = {name: SimpleNamespace(remote=method) for name, method in methods.items()}
    handle = SimpleNamespace(**remote, options=lambda stream: handle)
    return ServeRunService(SETTINGS, handle, 2048, "model", SamplingParams(), False)  # type: ignore[arg-type]


async def then_silence(*batches: RunEvents) -> AsyncGenerator[RunEvents]:
    for batch in batches:
        yield batch
    await asyncio.sleep(5)


async def whole(*batches: RunEvents) -> AsyncGenerator[RunEvents]:
    for batch in batches:
        yield batch


async def test_a_call_goes_to_another_scheduler_when_one_has_died() -> None:
    found = RunSnapshot(REQUEST, ())
    outcomes: list[Any] = [RuntimeError("the actor died"), found]

    async def snapshot(tenant: str, run_id: str) -> RunSnapshot:
        assert (tenant, run_id) == ("acme", "r1")
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert await service(snapshot=snapshot).snapshot("acme", "r1") is found


async def test_a_fault_of_the_scheduler_is_not_asked_for_for_long() -> None:
    calls = []

    async def snapshot(tenant: str, run_id: str) -> RunSnapshot:
        calls.append(run_id)
        raise RayTaskError("snapshot", "a traceback", KeyError("bug"))

    with pytest.raises(KeyError, match="bug"):
        await service(snapshot=snapshot).snapshot("", "r1")
    assert len(calls) == MAX_FAULTS


async def test_a_refusal_is_not_asked_for_again() -> None:
    calls = []

    async def cancel(tenant: str, run_id: str) -> None:
        calls.append(run_id)
        raise RunNotFoundError(f"there is no run {run_id}")

    with pytest.raises(RunNotFoundError):
        await service(cancel=cancel).cancel("", "r1")
    assert calls == ["r1"]


async def test_a_run_whose_scheduler_falls_silent_resumes_on_another() -> None:
    responses = [Response(then_silence((CHOSEN,))), Response(whole((FINISHED,)))]
    calls: list[tuple[RunRequest, RunEvents | None, Response]] = []

    def run(request: RunRequest, received: RunEvents | None) -> Response:
        calls.append((request, received, responses.pop(0)))
        return calls[-1][2]

    state = RunState(REQUEST)
    events = [event async for batch in service(run=run).answer(state) for event in batch]
    assert [event.text for event in events] == ["It ", "is."]
    (_, nothing, first), (_, received, _) = calls
    assert nothing is None
    assert received == (CHOSEN,)
    # Later: it may only have been late, and the second call have joined its run there.
    assert not first.cancelled
    assert state.answer().text == "It is."


async def test_the_events_of_a_run_come_from_its_owner_and_leaving_ends_the_call() -> None:
    responses = []

    async def owner(tenant: str, run_id: str) -> str:
        return "scheduler-2"

    def follow(tenant: str, run_id: str, after: EventId, *, replica: str) -> Response:
        assert replica == "scheduler-2"
        responses.append(Response(then_silence((CHOSEN,))))
        return responses[-1]

    async with aclosing(service(owner=owner, follow=follow).events(REQUEST)) as batches:
        assert await anext(batches) == (CHOSEN,)
    (response,) = responses
    assert response.cancelled

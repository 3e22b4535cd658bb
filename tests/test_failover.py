"""A run goes on with another scheduler, from what has been received."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from plato.failover import Events, follow_with_failover, resume_anywhere
from plato.reporting import NO_PLAN

from plato.errors import InvalidRequestError, UnavailableError
from plato.runs import (
    BEFORE_ALL,
    EventId,
    Message,
    Mode,
    NodeOutput,
    RunEvent,
    RunFailed,
    RunFinished,
    RunReport,
    RunRequest,
)

REQUEST = RunRequest("r", (Message("user", "?"),))
REPORT = RunReport("r", Mode.AUTO, Mode.PLATO, None, NO_PLAN, (), 0, 0, 0, 1.0)


def output(term: int, at: int) -> NodeOutput:
    return NodeOutput("r", 0.0, 1, 0, at, (at,), str(at), id=EventId(term, at))


def end(term: int, at: int) -> RunFinished:
    return RunFinished("r", 1.0, REPORT, id=EventId(term, at))


def moved(term: int, at: int) -> RunFailed:
    return RunFailed("r", 1.0, 500, "server_error", "taken_over", "m", id=EventId(term, at))


class Script:
    """Schedulers, one after the other; each gives its events, then raises or ends."""

    def __init__(self, *lives: tuple[RunEvent | Exception, ...]) -> None:
        self._lives = list(lives)
        self.known: list[Events | None] = []
        self.after: list[EventId] = []

    async def drive(self, request: RunRequest, known: Events | None) -> AsyncGenerator[Events]:
        self.known.append(known)
        async for batch in self._next():
            yield batch

    async def follow(self, after: EventId) -> AsyncGenerator[Events]:
        self.after.append(after)
        async for batch in self._next():
            yield batch

    async def _next(self) -> AsyncGenerator[Events]:
        for step in self._lives.pop(0) if len(self._lives) > 1 else self._lives[0]:
            if isinstance(step, Exception):
                raise step
            yield (step,)


async def collected(batches: AsyncGenerator[Events]) -> list[RunEvent]:
    async with aclosing(batches):
        return [event async for batch in batches for event in batch]


async def test_the_next_scheduler_gets_what_was_received_and_its_events_follow() -> None:
    script = Script((output(1, 0), output(1, 1), OSError("died")), (output(2, 2), end(2, 3)))
    events = await collected(follow_with_failover(script.drive, REQUEST, 5.0))
    assert events == [output(1, 0), output(1, 1), output(2, 2), end(2, 3)]
    first, second = script.known
    assert first is None
    assert second is not None
    (whole,) = second
    assert isinstance(whole, NodeOutput)
    assert (whole.offset, whole.tokens, whole.text) == (0, (0, 1), "01")


async def test_a_scheduler_that_dies_before_its_first_event_is_no_first_start_any_more() -> None:
    script = Script((OSError("died"),), (end(1, 0),))
    await collected(follow_with_failover(script.drive, REQUEST, 5.0))
    # With `None` the next one would start what the first may have started already.
    assert script.known == [None, ()]


async def test_a_stream_that_just_stops_is_no_end() -> None:
    script = Script((output(1, 0),), (end(2, 1),))
    assert (await collected(follow_with_failover(script.drive, REQUEST, 5.0)))[-1] == end(2, 1)


async def test_that_another_has_it_is_no_end_and_is_not_told() -> None:
    script = Script((output(1, 0), moved(1, 1)), (output(2, 1), end(2, 2)))
    events = await collected(follow_with_failover(script.drive, REQUEST, 5.0))
    assert events == [output(1, 0), output(2, 1), end(2, 2)]


async def test_what_another_scheduler_would_say_too_is_told_at_once() -> None:
    script = Script((InvalidRequestError("wrong"),))
    with pytest.raises(InvalidRequestError, match="wrong"):
        await collected(follow_with_failover(script.drive, REQUEST, 5.0))
    assert len(script.known) == 1


async def test_patience_ends() -> None:
    script = Script((OSError("died"),))
    async with asyncio.timeout(5):
        with pytest.raises(OSError, match="died"):
            await collected(follow_with_failover(script.drive, REQUEST, 0.3))
    assert len(script.known) > 2


async def test_a_follower_looks_for_a_run_again_behind_what_it_has() -> None:
    script = Script(
        (output(1, 0), output(1, 1), UnavailableError("silent")),
        (moved(1, 2),),
        (output(2, 2), end(2, 3)),
    )
    events = await collected(resume_anywhere(script.follow, "r", 5.0))
    assert events == [output(1, 0), output(1, 1), output(2, 2), end(2, 3)]
    assert script.after == [BEFORE_ALL, EventId(1, 1), EventId(1, 1)]


async def test_a_follower_of_a_run_that_is_not_there_is_told_so() -> None:
    script = Script((InvalidRequestError("no run"),))
    with pytest.raises(InvalidRequestError):
        await collected(resume_anywhere(script.follow, "r", 5.0))

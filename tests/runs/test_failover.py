"""A run goes on with another scheduler, from what has been received."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import pytest

from plato.errors import InvalidRequestError, NodeFailedError, UnavailableError
from plato.runs import (
    BEFORE_ALL,
    EventId,
    NodeOutput,
    RunEvent,
    RunEvents,
    RunFailed,
    RunFinished,
    RunRequest,
    RunState,
)
from plato.runs.failover import (
    MAX_FAULTS,
    call_with_failover,
    follow_detached,
    follow_with_failover,
)
from tests.runs import examples
from tests.runs.examples import REPORT, RUN, request

PATIENCE_S = 5.0


def output(term: int, at: int, text: str = "", begins: int = 0) -> NodeOutput:
    """Token `at` of the only node, in event `term`-`at`, which may release text."""
    token = examples.output(1, str(at), at, id=EventId(term, at))
    return replace(token, text=text, text_offset=begins)


def end(term: int, at: int) -> RunFinished:
    return RunFinished(RUN, 1.0, REPORT, id=EventId(term, at))


def moved(term: int, at: int) -> RunFailed:
    return RunFailed(RUN, 1.0, 500, "server_error", "taken_over", "m", id=EventId(term, at))


class Script:
    """Schedulers, one after the other; each gives its events, then raises or ends."""

    def __init__(self, *schedulers: tuple[RunEvent | RunEvents | Exception, ...]) -> None:
        self._schedulers = list(schedulers)
        self.known: list[RunEvents | None] = []
        self.after: list[EventId] = []
        self.closed = 0

    async def drive(
        self, request: RunRequest, known: RunEvents | None
    ) -> AsyncGenerator[RunEvents]:
        self.known.append(known)
        async with aclosing(self._next()) as batches:
            async for batch in batches:
                yield batch

    async def follow(self, after: EventId) -> AsyncGenerator[RunEvents]:
        self.after.append(after)
        async with aclosing(self._next()) as batches:
            async for batch in batches:
                yield batch

    async def _next(self) -> AsyncGenerator[RunEvents]:
        steps = self._schedulers.pop(0) if len(self._schedulers) > 1 else self._schedulers[0]
        try:
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                yield step if isinstance(step, tuple) else (step,)
        finally:
            self.closed += 1


async def collected(batches: AsyncGenerator[RunEvents]) -> list[RunEvent]:
    async with aclosing(batches):
        return [event async for batch in batches for event in batch]


async def driven(script: Script, patience_s: float = PATIENCE_S) -> list[RunEvent]:
    return await collected(follow_with_failover(script.drive, RunState(request()), patience_s))


async def test_the_next_scheduler_gets_what_was_received_and_its_events_follow() -> None:
    script = Script((output(1, 0), output(1, 1), OSError("died")), (output(2, 2), end(2, 3)))
    events = await driven(script)
    assert events == [output(1, 0), output(1, 1), output(2, 2), end(2, 3)]
    first, second = script.known
    assert first is None
    assert second is not None
    assert RunState(request(), second).nodes[1].text == "01"
    assert second[-1].id == EventId(1, 1)


async def test_a_scheduler_that_dies_before_its_first_event_is_no_first_start_any_more() -> None:
    script = Script((OSError("died"),), (end(1, 0),))
    await driven(script)
    # With `None` the next one would start what the first may have started already.
    assert script.known == [None, ()]


async def test_a_stream_that_just_stops_is_no_end() -> None:
    script = Script((output(1, 0),), (end(2, 1),))
    assert (await driven(script))[-1] == end(2, 1)


async def test_that_another_has_it_is_no_end_and_is_not_told() -> None:
    script = Script((output(1, 0), moved(1, 1)), (output(2, 1), end(2, 2)))
    events = await driven(script)
    assert events == [output(1, 0), output(2, 1), end(2, 2)]


async def test_what_another_scheduler_would_say_too_is_told_at_once() -> None:
    script = Script((InvalidRequestError("wrong"),))
    with pytest.raises(InvalidRequestError, match="wrong"):
        await driven(script)
    assert len(script.known) == 1


async def test_released_text_comes_once() -> None:
    whole = replace(output(2, 1), offset=0, node_text="01", text="one two", text_offset=0)
    script = Script(
        (output(1, 0, "one"), output(1, 1, " t", 3), OSError("died")),
        (whole, output(2, 2, " tw", 3), output(2, 3, "o!", 6), end(2, 4)),
    )
    state = RunState(request())
    events = await collected(follow_with_failover(script.drive, state, PATIENCE_S))
    assert [(event.text, event.text_offset) for event in events] == [
        ("one", 0),
        (" t", 3),
        ("wo", 5),
        ("", 7),
        ("!", 7),
        ("", 0),
    ]
    assert state.text == "one two!"
    assert state.answer().text == "one two!"
    known = script.known[1]
    assert known is not None
    assert RunState(request(), known).text == "one t"


async def test_text_of_another_scheduler_that_is_cut_inside_a_character_leaves_no_gap() -> None:
    script = Script(
        (output(1, 0, "aé"), OSError("died")),
        (output(2, 0, "ab東"), output(2, 1, "!", 5), end(2, 2)),
    )
    events = await driven(script)
    assert [(event.text, event.text_offset) for event in events] == [
        ("aé", 0),
        ("??", 3),
        ("!", 5),
        ("", 0),
    ]


async def test_missing_text_fails_the_answer() -> None:
    script = Script((output(1, 0, "one"), output(1, 1, "three", 7), end(1, 2)))
    with pytest.raises(NodeFailedError, match="text after byte 3 of the answer is missing"):
        await driven(script)
    assert len(script.known) == script.closed == 1


async def test_a_failed_run_has_ended() -> None:
    failure = RunFailed(RUN, 0.5, 500, "server_error", "node_failed", "broken")
    script = Script((output(1, 0), failure))
    assert await driven(script) == [output(1, 0), failure]
    assert await collected(follow_detached(script.follow, RUN, PATIENCE_S)) == [
        output(1, 0),
        failure,
    ]
    assert len(script.known) == len(script.after) == 1


async def test_events_before_a_move_count() -> None:
    script = Script(((output(1, 0), moved(1, 1)),), (end(2, 1),))
    assert await driven(script) == [output(1, 0), end(2, 1)]


async def test_leaving_closes_the_run() -> None:
    script = Script((output(1, 0), output(1, 1)))
    batches = follow_with_failover(script.drive, RunState(request()), PATIENCE_S)
    async with aclosing(batches):
        await anext(batches)
        assert script.closed == 0
    assert script.closed == 1


async def test_a_consumer_may_take_longer_than_the_patience() -> None:
    script = Script((output(1, 0), OSError("died")), (end(2, 1),))
    batches = follow_with_failover(script.drive, RunState(request()), 0.1)
    async with aclosing(batches):
        received: list[RunEvent] = []
        async for events in batches:
            received += events
            await asyncio.sleep(0.2)
    assert received == [output(1, 0), end(2, 1)]


async def test_patience_ends() -> None:
    script = Script((OSError("died"),))
    async with asyncio.timeout(30):
        with pytest.raises(OSError, match="died"):
            await driven(script, 0.3)
    assert len(script.known) > 2


async def test_a_follower_looks_for_a_run_again_behind_what_it_has() -> None:
    script = Script(
        (output(1, 0), output(1, 1), UnavailableError("silent")),
        (moved(1, 2),),
        (output(2, 2), end(2, 3)),
    )
    events = await collected(follow_detached(script.follow, RUN, PATIENCE_S))
    assert events == [output(1, 0), output(1, 1), output(2, 2), end(2, 3)]
    assert script.after == [BEFORE_ALL, EventId(1, 1), EventId(1, 1)]


async def test_a_follower_of_a_run_that_is_not_there_is_told_so() -> None:
    script = Script((InvalidRequestError("no run"),))
    with pytest.raises(InvalidRequestError):
        await collected(follow_detached(script.follow, RUN, PATIENCE_S))


class TestFault:
    """What the code of a scheduler raises, as opposed to what a dead one leaves behind."""

    async def test_ends_a_run_soon(self) -> None:
        script = Script((output(1, 0), KeyError("bug")), (KeyError("bug"),))
        state = RunState(request())
        with pytest.raises(KeyError):
            await collected(follow_with_failover(script.drive, state, PATIENCE_S, _is_key_error))
        assert len(script.known) == MAX_FAULTS

    async def test_ends_following_soon(self) -> None:
        script = Script((KeyError("bug"),))
        with pytest.raises(KeyError):
            await collected(follow_detached(script.follow, RUN, PATIENCE_S, _is_key_error))
        assert len(script.after) == MAX_FAULTS

    async def test_ends_a_call_soon(self) -> None:
        calls = []

        async def call() -> None:
            calls.append(1)
            raise KeyError("bug")

        with pytest.raises(KeyError):
            await call_with_failover(call, RUN, PATIENCE_S, _is_key_error)
        assert len(calls) == MAX_FAULTS

    async def test_does_not_count_deaths(self) -> None:
        died = (OSError("died"),)
        script = Script(*[died] * MAX_FAULTS, (KeyError("bug"),), (end(1, 0),))
        state = RunState(request())
        events = follow_with_failover(script.drive, state, PATIENCE_S, _is_key_error)
        assert await collected(events) == [end(1, 0)]


def _is_key_error(error: Exception) -> bool:
    return isinstance(error, KeyError)


class TestCall:
    async def test_is_repeated_while_schedulers_die(self) -> None:
        outcomes: list[Exception | None] = [RuntimeError("died"), TimeoutError(), None]

        async def call() -> str:
            outcome = outcomes.pop(0)
            if outcome is not None:
                raise outcome
            return "answered"

        assert await call_with_failover(call, RUN, PATIENCE_S) == "answered"

    async def test_is_not_repeated_after_a_refusal(self) -> None:
        calls = []

        async def call() -> None:
            calls.append(1)
            raise InvalidRequestError("no")

        with pytest.raises(InvalidRequestError):
            await call_with_failover(call, RUN, PATIENCE_S)
        assert calls == [1]

    @pytest.mark.parametrize("hangs", [False, True])
    async def test_ends_at_its_deadline(self, *, hangs: bool) -> None:
        async def call() -> None:
            if hangs:
                await asyncio.sleep(5)
            raise RuntimeError("died")

        with pytest.raises(UnavailableError, match="no scheduler responds"):
            await call_with_failover(call, RUN, 0.25)

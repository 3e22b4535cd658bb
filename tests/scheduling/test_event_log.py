"""An event log resumes where others stopped, for followers that know less or more than it did."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plato.runs import NodeCancelled, NodeState, RunRequest, RunState
from tests.runs.examples import (
    Parts,
    chances,
    chosen,
    drive,
    emitted,
    event_log,
    output,
    parts_strategy,
    plan_finished,
    planned,
    request,
    requests,
    run_events,
    started,
    with_ids,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(parts=parts_strategy, asked=requests, rng=chances, data=st.data())
async def test_a_takeover_leaves_the_answer_as_it_would_have_been(
    parts: Parts, asked: RunRequest, rng: random.Random, data: st.DataObject
) -> None:
    events = await run_events(asked, parts, rng)
    undisturbed = RunState(asked, events)
    counts = st.integers(0, len(events) - 1)
    seen, stored = data.draw(counts), data.draw(counts)
    second = await event_log(asked, RunState(asked, events[:stored]).events(), term=2)
    await drive(second, parts, rng)

    follower = RunState(asked, events[:seen])
    text = follower.text
    for event in await emitted(second, follower.last_id):
        text += follower.feed(event)
    assert not follower.text_missing
    assert text == follower.text == undisturbed.text == second.state.text
    assert follower.ended == second.state.ended
    if seen <= stored:
        assert {n: node.text for n, node in follower.nodes.items()} == {
            n: node.text for n, node in second.state.nodes.items()
        }


@settings(max_examples=50, deadline=None)
@given(
    first=st.text(alphabet="aé東", min_size=1, max_size=8),
    second=st.text(alphabet="aé東", min_size=1, max_size=8),
    stored=st.integers(0, 2),
)
async def test_a_follower_has_no_gap_when_the_second_scheduler_decodes_other_text(
    first: str, second: str, stored: int
) -> None:
    asked = request()
    begun = await event_log(asked)
    for event in (planned(1), chosen(), plan_finished(), output(1, first)):
        begun.append(event)
    seen = await emitted(begun)
    follower = RunState(asked, seen)
    resumed = await event_log(asked, seen[: len(seen) - 1 - stored], term=2)
    for event in (
        planned(1),
        chosen(),
        plan_finished(),
        output(1, second),
        output(1, second + "!"),
    ):
        resumed.append(event)
    new = "".join(map(follower.feed, await emitted(resumed, follower.last_id)))
    assert not follower.text_missing
    assert follower.text == first + new
    assert follower.text_bytes == len(follower.text.encode())
    assert follower.text_bytes == max(len(first.encode()), len(second.encode()) + 1)


async def test_parts_that_have_not_ended_are_reported_as_cancelled() -> None:
    log = await event_log(request())
    for event in (planned(1), planned(2), started(1), output(1, "abcd", at_s=0.4)):
        log.append(event)
    log.cancel_open()
    events = await emitted(log)
    assert [event.number for event in events if isinstance(event, NodeCancelled)] == [1, 2]
    report = log.report(("context store",))
    first, second = report.nodes
    assert (first.state, first.tokens, first.first_token_s) == (NodeState.CANCELLED, 4, 0.4)
    assert (second.state, second.tokens, second.started_s) == (NodeState.CANCELLED, 0, None)
    assert (report.output_tokens, report.degraded) == (4, ("context store",))


async def test_time_goes_on_after_a_takeover() -> None:
    known = with_ids([planned(1), output(1, "a", at_s=1.0), output(1, "b", 1, at_s=9.0)])
    log = await event_log(request(), RunState(request(), known).events(), term=2)
    assert log.at_s >= 9.0
    assert log.report(()).duration_s >= 9.0

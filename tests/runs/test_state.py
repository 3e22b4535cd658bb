"""What is known of a run from its events, whatever part of them is known, and in which form."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plato.runs import (
    BEFORE_ALL,
    NO_PLAN,
    EventId,
    Length,
    Mode,
    Node,
    NodeFailed,
    NodePlanned,
    NodeState,
    NodeStatus,
    PlanReport,
    RunError,
    RunEvent,
    RunFailed,
    RunRequest,
    RunState,
)
from tests.runs.examples import (
    PLAN,
    REPORT,
    RUN,
    STOP,
    Parts,
    chances,
    chosen,
    encode,
    finished,
    output,
    parts_strategy,
    plan_finished,
    planned,
    queued,
    report,
    request,
    requests,
    run_events,
    run_finished,
    started,
    with_ids,
)


def state_of(*events: RunEvent, **fields: Any) -> RunState:
    return RunState(request(**fields), events)


def node_of(*events: RunEvent, number: int = 1) -> NodeStatus:
    return state_of(*events).nodes[number]


def facts(state: RunState) -> dict[str, object]:
    """All that a state says."""
    return {
        "mode": state.mode,
        "plan": (state.plan, state.plan_complete, state.plan_tokens, state.planned_nodes),
        "nodes": {
            number: (
                node.node,
                tuple(node.tokens),
                node.text,
                node.finish,
                node.attempts,
                node.finished is not None,
                node.report,
            )
            for number, node in state.nodes.items()
        },
        "text": (state.text, state.text_bytes, state.text_missing),
        "first_text_s": state.first_text_s,
        "report": state.report(),
        "ended": state.ended,
        "last": (state.last_id, state.at_s),
        "settled": state.settled,
    }


class TestOutput:
    """The offset rules of `NodeStatus.take`."""

    def test_is_appended_at_its_end(self) -> None:
        node = node_of(output(1, "ab"), output(1, "cd", 2))
        assert (tuple(node.tokens), node.text) == (encode("abcd"), "abcd")

    @pytest.mark.parametrize(("text", "offset"), [("ab", 0), ("cd", 2), ("abcd", 0), ("b", 1)])
    def test_that_is_here_already_changes_nothing(self, text: str, offset: int) -> None:
        known = output(1, "ab"), output(1, "cd", 2)
        node = node_of(*known, output(1, text, offset))
        assert (tuple(node.tokens), node.text) == (encode("abcd"), "abcd")
        assert node.report == node_of(*known).report

    def test_that_is_here_already_can_be_the_last(self) -> None:
        known = output(1, "ab"), output(1, "cd", 2)
        for text, offset in (("abcd", 0), ("cd", 2), ("d", 3)):
            assert node_of(*known, output(1, text, offset, finish=STOP)).finish is STOP
        assert node_of(*known, output(1, "ab", finish=STOP)).finish is None

    def test_behind_a_gap_is_ignored(self) -> None:
        node = node_of(output(1, "ab"), output(1, "e", 4, finish=STOP))
        assert (tuple(node.tokens), node.text, node.finish) == (encode("ab"), "ab", None)

    def test_of_all_of_the_node_fills_a_gap(self) -> None:
        events = output(1, "ab"), output(1, "e", 4), output(1, "abcde", finish=STOP)
        node = node_of(*events)
        assert (tuple(node.tokens), node.text) == (encode("abcde"), "abcde")
        assert node.finish is STOP

    def test_of_all_of_the_node_completes_text_that_trails_its_tokens(self) -> None:
        trailing = replace(output(1, "abc"), node_text="a")
        for whole in (output(1, "abc"), output(1, "abc", finish=STOP)):
            node = node_of(trailing, whole)
            assert (tuple(node.tokens), node.text) == (encode("abc"), "abc")
            assert node.finish is whole.finish

    def test_that_overlaps_at_the_border_of_a_piece_replaces_what_is_behind_it(self) -> None:
        # Another scheduler resumed from less than is known here.
        node = node_of(output(1, "ab"), output(1, "cd", 2), output(1, "ef", 4))
        node.take(output(1, "cdefg", 2))
        assert (tuple(node.tokens), node.text) == (encode("abcdefg"), "abcdefg")
        node.take(output(1, "hi", 7, finish=STOP))
        assert (node.text, node.finish) == ("abcdefghi", STOP)

    def test_that_overlaps_elsewhere_is_ignored(self) -> None:
        # Which part of its text is new cannot be told.
        node = node_of(output(1, "ab"), output(1, "cd", 2))
        node.take(output(1, "defg", 3))
        assert (tuple(node.tokens), node.text) == (encode("abcd"), "abcd")

    def test_after_the_last_is_ignored(self) -> None:
        node = node_of(output(1, "ab", finish=STOP), output(1, "cd", 2))
        assert node.text == "ab"

    def test_without_tokens_can_end_a_node(self) -> None:
        end = replace(output(1, ""), offset=2, node_text="!", finish=STOP)
        node = node_of(output(1, "ab"), end)
        assert (tuple(node.tokens), node.text, node.finish) == (encode("ab"), "ab!", STOP)

    def test_counts_as_an_attempt(self) -> None:
        assert node_of(started(1), output(1, "ab"), output(1, "c", 2, attempt=2)).attempts == 3


class TestNodes:
    def test_are_not_finished_while_some_of_their_output_is_missing(self) -> None:
        state = state_of(output(1, "ab"), finished(1, "abcd"))
        assert (state.nodes[1].finish, state.nodes[1].finished) == (None, None)
        state.feed(output(1, "abcd", finish=STOP))
        assert state.nodes[1].finish is STOP
        state.feed(finished(1, "abcd"))
        assert state.nodes[1].finished == finished(1, "abcd")

    def test_are_those_of_the_only_answer_once_it_is_sequential(self) -> None:
        state = state_of(planned(1), output(1, "abandoned"), planned(2))
        state.feed(chosen(Mode.SEQUENTIAL, reason="the planner failed"))
        assert state.planned_nodes == ()
        assert state.nodes == {}
        state.feed(planned(1, "Answer"))
        state.feed(output(1, "answer"))
        state.feed(chosen(Mode.SEQUENTIAL, reason="the planner failed"))
        assert [(node.title, node.text) for node in state.nodes.values()] == [("Answer", "answer")]

    def test_are_reported_by_the_latest_event_that_says_more(self) -> None:
        line = NodePlanned(RUN, 0.1, Node(1, "Sun", length=Length.LONG))
        state = state_of(line)
        node = state.node(1)
        assert node.report.length is Length.LONG
        assert (node.title, node.report.title) == ("Sun", "Sun")
        assert (node.report.state, node.report.planned_s) == (NodeState.PLANNED, 0.1)
        state.feed(started(1, prompt_tokens=50))
        assert node.report == report(1, attempts=1, prompt_tokens=50)
        state.feed(output(1, "abcd", at_s=0.4, cached_tokens=7))
        state.feed(output(1, "efg", 4, at_s=0.5, cached_tokens=9))
        assert (node.report.state, node.report.tokens) == (NodeState.RUNNING, 7)
        assert (node.report.first_token_s, node.report.cached_tokens) == (0.4, 9)
        state.feed(finished(1, "abcdefg"))
        assert node.report == finished(1, "abcdefg").report

    def test_that_started_again_stay_so_when_the_first_start_is_repeated(self) -> None:
        node = node_of(started(1), started(1, attempt=1), started(1))
        assert (node.attempts, node.report.attempts) == (2, 2)

    def test_that_failed_stay_so_until_they_are_queued_again(self) -> None:
        failure = NodeFailed(RUN, 0.3, 1, report(1, state=NodeState.FAILED), "lost")
        known = planned(1), queued(1), started(1), failure
        assert state_of(*known, queued(1), started(1)).report().nodes[0].state is NodeState.FAILED
        again = state_of(*known, queued(1, attempt=1))
        assert again.report().nodes[0].state is NodeState.QUEUED
        again.feed(started(1, attempt=1))
        assert again.report().nodes[0].state is NodeState.RUNNING


class TestReport:
    def test_sums_cover_plan_and_parts(self) -> None:
        state = state_of(chosen(), planned(1), planned(2), plan_finished())
        state.feed(started(1, prompt_tokens=50))
        state.feed(output(1, "one", cached_tokens=30))
        state.feed(output(2, "two"))
        state.feed(
            replace(finished(2, "two", at_s=0.8), report=report(2, prompt_tokens=7, tokens=3))
        )
        shown = state.report()
        assert (shown.run_id, shown.mode, shown.plan) == (RUN, Mode.PLATO, PLAN)
        assert [node.number for node in shown.nodes] == [1, 2]
        assert (shown.prompt_tokens, shown.cached_tokens) == (100 + 50 + 7, 60 + 30)
        assert shown.output_tokens == 6

    def test_a_run_has_taken_until_its_last_event(self) -> None:
        state = state_of(planned(1, at_s=0.1), output(1, "a", at_s=0.7), planned(2, at_s=0.5))
        assert state.at_s == state.report().duration_s == 0.7

    def test_tokens_of_a_repeated_attempt_count_once(self) -> None:
        state = state_of(
            planned(1), started(1), output(1, "abcdef"), output(1, "cde", 2, attempt=1)
        )
        assert state.report().output_tokens == 6

    def test_the_plan_is_reported_as_far_as_it_is_known(self) -> None:
        so_far = PlanReport("model", nodes=1, tokens=12, prompt_tokens=100)
        state = state_of()
        assert (state.plan, state.plan_tokens) == (NO_PLAN, ())
        state.feed(planned(1, plan=so_far, plan_tokens=(4,)))
        state.feed(planned(2))
        assert (state.report().plan, state.plan_tokens) == (so_far, (4,))
        assert not state.plan_complete
        state.feed(plan_finished())
        assert state.report().plan == PLAN
        assert state.plan_complete

    def test_the_mode_is_the_requested_one_until_another_is_chosen(self) -> None:
        state = state_of(mode=Mode.AUTO)
        assert (state.mode, state.report().mode) == (None, Mode.AUTO)
        state.feed(chosen(Mode.SEQUENTIAL, reason="the planner failed"))
        shown = state.report()
        assert (shown.requested_mode, shown.mode) == (Mode.AUTO, Mode.SEQUENTIAL)
        assert shown.reason == "the planner failed"

    def test_each_reason_is_given_once(self) -> None:
        state = state_of(chosen(reason="busy"), plan_finished(reason="busy"))
        assert state.report().reason == "busy"
        state.feed(plan_finished(reason="late"))
        assert state.report().reason == "busy; late"

    def test_a_run_that_has_ended_is_reported_by_its_last_event(self) -> None:
        assert state_of(planned(1), run_finished()).report() == REPORT

    def test_a_failure_without_a_report_leaves_what_is_known(self) -> None:
        state = state_of(planned(1, "Sun"), RunFailed(RUN, 0.5, 500, "t", "node_failed", "broken"))
        assert [node.title for node in state.report().nodes] == ["Sun"]

    def test_a_run_is_settled_when_no_part_can_come_and_none_is_open(self) -> None:
        state = state_of(planned(1), output(1, "one"), finished(1, "one"))
        assert not state.settled
        state.feed(plan_finished())
        assert state.settled
        state.feed(planned(2))
        assert not state.settled


class TestFirstText:
    def test_is_that_of_the_first_part_in_plan_order(self) -> None:
        events = chosen(), output(2, "two", at_s=0.2), output(1, "one", at_s=0.3)
        state = state_of(*events)
        assert state.first_text_s is None
        state.release("one", 0)
        assert state.first_text_s == 0.3

    def test_is_more_than_white_space(self) -> None:
        state = state_of(chosen(), output(1, " \n", at_s=0.2), output(1, "one", 2, at_s=0.3))
        state.release("one", 0)
        assert state.first_text_s == 0.3

    def test_waits_for_the_mode(self) -> None:
        state = state_of(output(1, "one", at_s=0.3))
        state.feed(replace(chosen(at_s=0.5), text="one"))
        assert state.first_text_s == 0.5

    def test_waits_for_the_end_of_a_part_without_text(self) -> None:
        state = state_of(chosen(), output(2, "two", at_s=0.2))
        state.feed(output(1, "\n", at_s=0.6, finish=STOP))
        state.release("two", 0)
        assert state.first_text_s == 0.6


class TestAnswer:
    def test_is_the_released_text_with_the_last_report(self) -> None:
        ended = replace(REPORT, answer_tokens=6, finish_reason="length")
        last = replace(run_finished(), report=ended, text=" two", text_offset=3)
        answer = state_of(replace(chosen(), text="one"), last).answer()
        assert (answer.text, answer.report) == ("one two", ended)
        assert (answer.tokens, answer.finish_reason) == (6, "length")

    def test_of_a_failed_run_is_what_it_failed_with(self) -> None:
        failure = RunFailed(
            RUN, 0.5, 504, "server_error", "deadline_exceeded", "too slow", "p", 2.0
        )
        state = state_of(replace(chosen(), text="one"), failure)
        with pytest.raises(RunError, match="too slow") as raised:
            state.answer()
        error = raised.value
        assert (error.status, error.type, error.code) == (504, "server_error", "deadline_exceeded")
        assert (error.param, error.retry_after_s) == ("p", 2.0)

    def test_is_not_there_before_the_end(self) -> None:
        with pytest.raises(AssertionError):
            state_of(replace(chosen(), text="one")).answer()


class TestReleasedText:
    def test_is_contiguous_and_measured_in_bytes(self) -> None:
        state = state_of()
        assert (state.release("é", 0), state.release("a", 2)) == ("é", "a")
        assert (state.text, state.text_bytes) == ("éa", 3)

    def test_that_is_here_already_is_dropped(self) -> None:
        state = state_of()
        state.release("éa", 0)
        assert (state.release("é", 0), state.release("éab", 0), state.release("bc", 3)) == (
            "",
            "b",
            "c",
        )
        assert state.text == "éabc"

    def test_behind_a_gap_is_missing(self) -> None:
        state = state_of(replace(chosen(), text="one"))
        assert state.feed(replace(planned(1), text="two", text_offset=4)) == ""
        assert state.text_missing
        assert (state.text, state.text_bytes) == ("one", 3)

    def test_that_is_cut_inside_a_character_keeps_its_length(self) -> None:
        # Another scheduler has decoded something else.
        state = state_of()
        state.release("aé", 0)
        assert state.release("ab東!", 0) == "??!"
        assert state.release("?", 6) == "?"
        assert (state.text, state.text_bytes) == ("aé??!?", 7)

    @settings(deadline=None)
    @given(known=st.text(), other=st.text(), data=st.data())
    def test_keeps_what_was_there_and_ends_where_the_new_text_ends(
        self, known: str, other: str, data: st.DataObject
    ) -> None:
        state = state_of()
        state.release(known, 0)
        offset = data.draw(st.integers(0, state.text_bytes))
        new = state.release(other, offset)
        assert state.text == known + new
        assert state.text_bytes == len(state.text.encode())
        assert state.text_bytes == max(len(known.encode()), offset + len(other.encode()))
        assert not state.text_missing


EVENTS = with_ids(
    (
        planned(1, at_s=0.0, plan_tokens=(1, 2)),
        started(1, at_s=1.0, prompt_tokens=5),
        chosen(at_s=2.0),
        output(1, "\n ", at_s=3.0, cached_tokens=1),
        planned(2, at_s=4.0, plan_tokens=(1, 2, 3)),
        replace(output(1, "cd", 2, at_s=5.0, cached_tokens=2), text="cd"),
        plan_finished(),
        replace(output(1, "e", 4, at_s=7.0, finish=STOP), text="e", text_offset=2),
        finished(1, "\n cde", at_s=8.0),
        started(2, at_s=9.0),
        replace(output(2, "xy", at_s=10.0), text="\n\nxy", text_offset=3),
        started(2, 1, at_s=11.0),
        replace(output(2, "z", 2, attempt=1, at_s=12.0), text="z", text_offset=7),
    )
)


class TestCondensedEvents:
    @pytest.mark.parametrize("count", range(len(EVENTS) + 1))
    def test_say_the_same_as_all(self, count: int) -> None:
        state = state_of(*EVENTS[:count])
        assert facts(state_of(*state.events())) == facts(state)

    def test_are_few(self) -> None:
        state = state_of(*EVENTS)
        more = [output(2, "ab", 3 + 2 * at, at_s=13.0 + at) for at in range(100)]
        for event in more:
            state.feed(replace(event, id=EventId(2, event.offset)))
        assert len(state.events()) <= len(EVENTS) + 2

    def test_come_in_the_order_of_their_ids_up_to_the_last(self) -> None:
        # The last says nothing of the node, but its text counts.
        nothing_new = replace(
            output(2, "xy", at_s=12.0), text="!", text_offset=8, id=EventId(1, 13)
        )
        state = state_of(*EVENTS, nothing_new)
        condensed = state.events()
        ids = [event.id for event in condensed]
        assert ids == sorted(ids)
        assert ids[-1] == state.last_id == EventId(1, 13)
        assert facts(state_of(*condensed)) == facts(state)

    def test_say_nothing_that_was_not_known_at_their_ids(self) -> None:
        for event in state_of(*EVENTS).events()[:-1]:
            known = state_of(*(earlier for earlier in EVENTS if earlier.id <= event.id))
            before = facts(known)
            known.feed(event)
            assert facts(known) == before

    def test_begin_where_a_follower_of_them_is(self) -> None:
        follower = state_of()
        for event in state_of(*EVENTS).events():
            assert event.text_offset <= follower.text_bytes
            follower.feed(event)
        assert follower.text == state_of(*EVENTS).text

    def test_of_a_sequential_answer_are_those_after_what_it_replaced(self) -> None:
        abandoned = planned(1), output(1, "abandoned"), planned(2), chosen(Mode.SEQUENTIAL)
        answer = planned(1, "Answer"), plan_finished(), started(1), output(1, "answer", finish=STOP)
        state = state_of(*with_ids((*abandoned, *answer)))
        again = state_of(*state.events())
        assert facts(again) == facts(state)
        assert again.nodes[1].text == "answer"

    @settings(max_examples=100, deadline=None)
    @given(st.data())
    def test_and_repetitions_change_nothing(self, data: st.DataObject) -> None:
        state = state_of()
        for index, event in enumerate(EVENTS):
            state.feed(event)
            assert state.feed(EVENTS[data.draw(st.integers(0, index))]) == ""
            for condensed in state_of(*EVENTS[: data.draw(st.integers(0, index + 1))]).events():
                assert state.feed(condensed) == ""
        assert facts(state) == facts(state_of(*EVENTS))

    @pytest.mark.slow
    @settings(max_examples=200, deadline=None)
    @given(parts=parts_strategy, asked=requests, rng=chances, data=st.data())
    async def test_replace_any_prefix_for_a_follower_that_knows_any_other(
        self, parts: Parts, asked: RunRequest, rng: random.Random, data: st.DataObject
    ) -> None:
        events = await run_events(asked, parts, rng)
        counts = st.integers(0, len(events))
        known, condensed = sorted((data.draw(counts), data.draw(counts)))
        expected = RunState(asked, events)
        state = RunState(asked, events[:condensed])
        assert facts(RunState(asked, state.events())) == facts(state)

        follower = RunState(asked, events[:known])
        text = follower.text
        text += "".join(map(follower.feed, state.events()))
        assert facts(follower) == facts(state)
        text += "".join(map(follower.feed, events[condensed:]))
        assert facts(follower) == facts(expected)
        assert text == expected.text

        # One that knows more already.
        further = RunState(asked, events[:condensed])
        assert "".join(map(further.feed, RunState(asked, events[:known]).events())) == ""
        text = further.text + "".join(map(further.feed, events[condensed:]))
        assert facts(further) == facts(expected)
        assert text == expected.text


def test_a_state_without_events_knows_nothing() -> None:
    state = state_of()
    assert state.events() == ()
    assert (state.last_id, state.at_s, state.text) == (BEFORE_ALL, 0.0, "")
    assert not state.settled

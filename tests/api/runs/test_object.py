"""A run as clients see it, and its events, which can be resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from plato.api.questions.requests import parse_request
from plato.api.runs.object import RunObject
from plato.api.runs.stream import event_data
from plato.engine import FinishReason, SamplingParams
from plato.errors import InvalidRequestError
from plato.runs import (
    BEFORE_ALL,
    EventId,
    Message,
    Mode,
    ModeChosen,
    Node,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeReport,
    NodeStarted,
    NodeState,
    PlanFinished,
    PlanReport,
    RunEvent,
    RunFailed,
    RunFinished,
    RunRequest,
    RunState,
)
from plato.runs.composer import Composer

REQUEST = RunRequest(
    "run-1",
    (Message("user", "?"),),
    Mode.PLATO,
    SamplingParams(),
    max_nodes=8,
    deadline_s=60.0,
    metadata=(("ticket", "7"),),
    created_unix_s=1_790_000_000.5,
)
ANSWER = "first\n\nsécond"


def part(number: int, tokens: int = 0) -> NodeReport:
    state = NodeState.DONE if tokens else NodeState.RUNNING
    return NodeReport(number, f"Part {number}", (), state, tokens=tokens, prompt_tokens=10)


def output(number: int, offset: int, text: str, at: int, *, end: bool = False) -> NodeOutput:
    finish = FinishReason.STOP if end else None
    tokens = tuple(map(ord, text))
    return NodeOutput(
        "run-1", at / 10, number, 0, offset, tokens, text, finish=finish, id=EventId(1, at)
    )


def whole() -> list[RunEvent]:
    """A run's events with the text that each releases, as a scheduler sends them."""
    events: list[RunEvent] = [
        ModeChosen("run-1", 0.0, Mode.PLATO, id=EventId(1, 0)),
        NodePlanned("run-1", 0.1, Node(1, "One"), id=EventId(1, 1)),
        NodePlanned("run-1", 0.2, Node(2, "Two"), id=EventId(1, 2)),
        PlanFinished("run-1", 0.3, PlanReport("model", 2, 9), id=EventId(1, 3)),
        NodeStarted("run-1", 0.4, 1, 0, part(1), id=EventId(1, 4)),
        NodeStarted("run-1", 0.5, 2, 0, part(2), id=EventId(1, 5)),
        output(2, 0, "sécond", 6, end=True),
        NodeFinished("run-1", 0.7, 2, FinishReason.STOP, part(2, 6), id=EventId(1, 7)),
        output(1, 0, "fi", 8),
        output(1, 2, "rst", 9, end=True),
        NodeFinished("run-1", 1.0, 1, FinishReason.STOP, part(1, 5), id=EventId(1, 10)),
    ]
    state = RunState(REQUEST)
    composer = Composer(state, lambda tokens: "".join(map(chr, tokens)))
    released: list[RunEvent] = []
    for event in events:
        state.feed(event)
        begins = composer.released_bytes
        released.append(replace(event, text=composer.advance(), text_offset=begins))
    report = replace(state.report(), answer_tokens=11, finish_reason="stop")
    fields: dict[str, Any] = {"id": EventId(1, 11), "text_offset": composer.released_bytes}
    return [*released, RunFinished("run-1", 1.1, report, **fields)]


def told(events: list[RunEvent], after: EventId = BEFORE_ALL) -> list[dict[str, Any]]:
    """What a client gets."""
    state, found = RunState(REQUEST), []
    for event in events:
        state.feed(event)
        if event.id > after:
            found.append(json.loads(json.dumps(event_data(event, state, "small"))))
    return found


def text_of(sent: list[dict[str, Any]], text: bytes = b"") -> bytes:
    """What a client has that puts every text at its place."""
    for data in sent:
        text = text[: data["text_offset"]] + data["text"].encode()
    return text


def run_after(*events: RunEvent) -> RunObject:
    return RunObject.of(RunState(REQUEST, events), "small")


def test_a_run_that_has_just_begun_shows_what_was_asked() -> None:
    run = run_after()
    assert (run.id, run.status, run.answer, run.texts) == ("run-1", "running", "", {})
    assert (run.created, run.question, run.metadata) == (1_790_000_000, "?", {"ticket": "7"})
    assert run.options.model_dump() == {
        "mode": Mode.PLATO,
        "max_nodes": 8,
        "max_tokens": None,
        "stop": (),
        "headings": False,
        "deadline_s": 60.0,
    }
    assert (run.plato.requested_mode, run.plato.graph.nodes) == (Mode.PLATO, ())


def test_a_run_shows_how_far_it_is_and_at_the_end_everything() -> None:
    run = run_after(*whole()[:9])
    assert (run.id, run.status, run.answer) == ("run-1", "running", "fi")
    assert run.texts == {1: "fi", 2: "sécond"}
    assert (run.usage, run.finish_reason, run.error) == (None, None, None)
    assert len(run.plato.graph.nodes) == 2
    run = run_after(*whole())
    assert (run.status, run.answer, run.finish_reason) == ("done", ANSWER, "stop")
    assert run.usage is not None
    assert run.usage.completion_tokens == 11 + 9


@pytest.mark.parametrize(("code", "status"), [("cancelled", "cancelled"), ("overloaded", "failed")])
def test_a_run_that_ended_badly_says_why_and_keeps_what_there_was(code: str, status: str) -> None:
    end = RunFailed("run-1", 1.0, 500, "server_error", code, "because", id=EventId(1, 9))
    run = run_after(*whole()[:9], end)
    assert (run.status, run.answer) == (status, "fi")
    assert run.error is not None
    assert (run.error.code, run.error.message) == (code, "because")
    assert len(run.plato.graph.nodes) == 2


def test_every_event_has_its_id_its_type_and_the_text_it_releases() -> None:
    found = told(whole())
    assert [data["id"] for data in found] == [f"1-{number}" for number in range(12)]
    kinds = [data["type"] for data in found]
    assert kinds[-3:] == ["node_output", "node_finished", "run_finished"]
    assert [data["text"] for data in found if data["text"]] == ["fi", "rst\n\nsécond"]
    assert found[-1]["run"] == run_after(*whole()).model_dump(mode="json")


def test_an_event_without_text_stands_at_the_end_of_the_answer() -> None:
    assert [data["text_offset"] for data in told(whole())] == [*[0] * 9, 2, 14, 14]
    fields: dict[str, Any] = {"id": EventId(1, 9), "text_offset": 2}
    end = RunFailed("run-1", 1.0, 500, "server_error", "overloaded", "full", **fields)
    (failed,) = told([*whole()[:9], end], EventId(1, 8))
    assert (failed["type"], failed["text"], failed["text_offset"]) == ("run_failed", "", 2)


@pytest.mark.parametrize("seen", range(12))
def test_a_client_that_reconnects_gets_what_it_has_not_seen(seen: int) -> None:
    before = told(whole()[: seen + 1])
    rest = told(whole(), EventId(1, seen))
    assert [data["id"] for data in rest] == [f"1-{number}" for number in range(seen + 1, 12)]
    assert text_of(rest, text_of(before)) == ANSWER.encode()


@pytest.mark.parametrize("seen", range(12))
def test_also_when_the_log_has_its_past_only_in_short(seen: int) -> None:
    before = told(whole()[: seen + 1])
    for kept in range(12):
        condensed = RunState(REQUEST, whole()[:kept]).events()
        rest = told([*condensed, *whole()[kept:]], EventId(1, seen))
        assert text_of(rest, text_of(before)) == ANSWER.encode()


def test_a_run_is_not_streamed() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": True}
    with pytest.raises(InvalidRequestError, match="events") as raised:
        parse_request(json.dumps(body), run=True)
    assert raised.value.param == "stream"
    assert parse_request(json.dumps(body)).stream

"""A run as clients see it, and its events as they can be resumed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from plato.answering import Answering
from plato.reporting import RunTracker

from plato.api.requests import parse_request
from plato.api.runs import RunResponse
from plato.engine import FinishReason
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
)

REQUEST = RunRequest("run-1", (Message("user", "?"),), mode=Mode.PLATO)


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
    events: list[RunEvent] = [
        ModeChosen("run-1", 0.0, Mode.PLATO, id=EventId(1, 0)),
        NodePlanned("run-1", 0.1, Node(1, "One"), id=EventId(1, 1)),
        NodePlanned("run-1", 0.2, Node(2, "Two"), id=EventId(1, 2)),
        PlanFinished("run-1", 0.3, PlanReport("model", 2, 9), id=EventId(1, 3)),
        NodeStarted("run-1", 0.4, 1, 0, part(1), id=EventId(1, 4)),
        NodeStarted("run-1", 0.5, 2, 0, part(2), id=EventId(1, 5)),
        output(2, 0, "second", 6, end=True),
        NodeFinished("run-1", 0.7, 2, FinishReason.STOP, part(2, 6), id=EventId(1, 7)),
        output(1, 0, "fi", 8),
        output(1, 2, "rst", 9, end=True),
        NodeFinished("run-1", 1.0, 1, FinishReason.STOP, part(1, 5), id=EventId(1, 10)),
    ]
    tracker = RunTracker("run-1", Mode.PLATO)
    for event in events:
        tracker.feed(event)
    return [*events, RunFinished("run-1", 1.1, tracker.report(), id=EventId(1, 11))]


def response() -> RunResponse:
    return RunResponse("small", Answering(REQUEST, lambda tokens: "".join(map(chr, tokens))))


def told(events: list[RunEvent], after: EventId = BEFORE_ALL) -> list[tuple[str, str, Any]]:
    """(id, type, data) of what a client gets."""
    building, found = response(), []
    for event in events:
        if (sent := building.take(event, after)) is not None:
            lines = dict(line.split(": ", 1) for line in sent.decode().rstrip("\n").split("\n"))
            found.append((lines["id"], lines["event"], json.loads(lines["data"])))
    return found


def text_of(pieces: list[tuple[str, str, Any]], text: str = "") -> str:
    """What a client has that puts every piece at its place."""
    for _, _, data in pieces:
        text = text[: data["text_offset"]] + data["text"]
    return text


def test_a_run_shows_how_far_it_is_and_at_the_end_everything() -> None:
    building = response()
    for event in whole()[:9]:
        building.answering.take(event)
    run = building.run()
    assert (run.id, run.status, run.answer) == ("run-1", "running", "fi")
    assert (run.usage, run.finish_reason, run.error) == (None, None, None)
    assert len(run.plato.runs.graph.nodes) == 2
    for event in whole()[9:]:
        building.answering.take(event)
    run = building.run()
    assert (run.status, run.answer, run.finish_reason) == ("done", "first\n\nsecond", "stop")
    assert run.usage is not None
    assert run.usage.completion_tokens == 11 + 9


@pytest.mark.parametrize(("code", "status"), [("cancelled", "cancelled"), ("overloaded", "failed")])
def test_a_run_that_ended_badly_says_why_and_keeps_what_there_was(code: str, status: str) -> None:
    building = response()
    for event in whole()[:9]:
        building.answering.take(event)
    end = RunFailed("run-1", 1.0, 500, "server_error", code, "because", id=EventId(1, 9))
    building.answering.take(end)
    run = building.run()
    assert (run.status, run.answer) == (status, "fi")
    assert run.error is not None
    assert (run.error["code"], run.error["message"]) == (code, "because")
    assert len(run.plato.runs.graph.nodes) == 2


def test_every_event_has_its_id_its_type_and_the_text_it_releases() -> None:
    found = told(whole())
    assert [sent[0] for sent in found] == [f"1-{number}" for number in range(12)]
    assert [sent[1] for sent in found][-3:] == ["node_output", "node_finished", "run_finished"]
    assert all(data["type"] == kind and data["id"] == id_ for id_, kind, data in found)
    assert text_of(found) == "first\n\nsecond"
    assert found[-1][2]["run"]["answer"] == "first\n\nsecond"
    assert found[-1][2]["run"]["status"] == "done"


@pytest.mark.parametrize("seen", range(12))
def test_a_client_that_reconnects_gets_what_it_has_not_seen(seen: int) -> None:
    before = told(whole()[: seen + 1])
    rest = told(whole(), EventId(1, seen))
    assert [sent[0] for sent in rest] == [f"1-{number}" for number in range(seen + 1, 12)]
    assert text_of(rest, text_of(before)) == "first\n\nsecond"


@pytest.mark.parametrize("seen", range(12))
def test_also_when_the_log_has_its_past_only_in_short(seen: int) -> None:
    from plato.history import History

    before = told(whole()[: seen + 1])
    for kept in range(12):
        history = History(whole()[:kept])
        rest = told([*history.events(), *whole()[kept:]], EventId(1, seen))
        assert text_of(rest, text_of(before)) == "first\n\nsecond"


def test_a_run_is_not_streamed() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": True}
    with pytest.raises(InvalidRequestError, match="events") as raised:
        parse_request(json.dumps(body), run=True)
    assert raised.value.param == "stream"
    assert parse_request(json.dumps(body)).stream

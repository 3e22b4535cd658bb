"""What crosses processes arrives as it was sent."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from plato import runs
from plato.engine import (
    Chunk,
    EngineStats,
    FinishReason,
    GenerateRequest,
    Grammar,
    Lease,
    Load,
    Prompt,
    SamplingParams,
    Segment,
    StopConditions,
)
from plato.engine.capabilities import BUILT_IN
from plato.errors import NodeFailedError
from plato.runs import (
    BEFORE_ALL,
    EventId,
    Message,
    Mode,
    ModeChosen,
    Node,
    NodeCancelled,
    NodeFailed,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeQueued,
    NodeReport,
    NodeStarted,
    NodeState,
    PlanFinished,
    PlanReport,
    RunError,
    RunFailed,
    RunFinished,
    RunReport,
    RunRequest,
    RunSnapshot,
)

NODE = Node(2, "Title 東", (1,), max_tokens=5)
PLAN = PlanReport("model", nodes=2, one_probability=0.25, replica="r")
REPORT = NodeReport(2, "Title", (1,), NodeState.DONE, sees=(1,), finish=FinishReason.LENGTH)
SAMPLING = SamplingParams(0.5, 0.9, 7, 1.1, frozenset({3}), ((4, -1.0),))
RUN = RunReport(
    "r", Mode.AUTO, Mode.PLATO, None, PLAN, (REPORT,), 9, 3, 20, 1.5, SAMPLING, degraded=("store",)
)
PROMPT = Prompt((Segment((1, 2), public=True), Segment((3,))), "tenant")

REQUEST = RunRequest(
    "r", (Message("user", "Why?"),), Mode.SKELETON, SAMPLING, 8, 60.0, plan=(NODE,)
)
OUTPUT = NodeOutput("r", 0.1, 2, 0, 5, (1, 2), "text", text="é", text_offset=3)
FAILED = RunFailed("r", 0.1, 500, "server_error", "x", "broken", "plato", 2.0, report=RUN)

VALUES = [
    REQUEST,
    ModeChosen("r", 0.1, Mode.SEQUENTIAL, "because"),
    NodePlanned("r", 0.1, NODE),
    PlanFinished("r", 0.1, PLAN, None),
    NodeQueued("r", 0.1, 2, 0, REPORT),
    NodeStarted("r", 0.1, 2, 0, REPORT),
    OUTPUT,
    NodeFinished("r", 0.1, 2, FinishReason.STOP, REPORT),
    NodeFailed("r", 0.1, 2, REPORT, "lost"),
    NodeCancelled("r", 0.1, 2, REPORT),
    RunFinished("r", 0.1, RUN),
    FAILED,
    RunSnapshot(REQUEST, (OUTPUT, FAILED)),
    GenerateRequest(
        "r",
        2,
        PROMPT,
        9,
        emitted=(5,),
        sampling=SAMPLING,
        stop=StopConditions(False, ("x",)),
        grammar=Grammar("start: /a/", "root ::= [a]"),
        lease=Lease("owner", 1.5),
    ),
    Chunk("r", 2, 0, 5, (1,), "a", FinishReason.CANCELLED, load=Load(running=1), scores=(-1.0,)),
    EngineStats("m", "e", "float32", 512, 9, 1, Load(), 1, 2, 3, 4, BUILT_IN, live=(("r", 2),)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_survive_pickling(value: object) -> None:
    copy = pickle.loads(pickle.dumps(value))
    assert copy == value
    assert type(copy) is type(value)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_cannot_be_changed(value: object) -> None:
    name = dataclasses.fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)


def test_every_event_of_a_run_is_among_them() -> None:
    assert set(runs.RunEvent.__args__) <= {type(value) for value in VALUES}


def test_a_prompt_that_has_computed_its_tokens_survives_too() -> None:
    assert PROMPT.hashes
    assert PROMPT.tokens
    copy = pickle.loads(pickle.dumps(PROMPT))
    assert (copy, copy.hashes, copy.tokens) == (PROMPT, PROMPT.hashes, PROMPT.tokens)


def test_modes_and_states_are_their_names() -> None:
    assert f"{Mode.PLATO} {NodeState.DONE} {FinishReason.LENGTH}" == "plato done length"


def test_an_event_keeps_its_id_which_does_not_make_it_another() -> None:
    event = dataclasses.replace(OUTPUT, id=EventId(2, 7))
    assert event == OUTPUT
    assert pickle.loads(pickle.dumps(event)).id == EventId(2, 7)


def test_ids_increase_from_term_to_term_and_are_read_as_they_are_written() -> None:
    ids = [BEFORE_ALL, EventId(1, 0), EventId(1, 10), EventId(2, 0), EventId(10, 1)]
    assert sorted(ids, key=lambda event_id: (event_id.term, event_id.number)) == sorted(ids) == ids
    assert [EventId.parse(str(event_id)) for event_id in ids] == ids
    assert str(EventId(1, 42)) == "1-42"


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "a-1", "1-2-3", "1-²", " 1-2"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an event id"):
        EventId.parse(text)


def test_a_failure_says_what_its_error_does_and_raises_it_again() -> None:
    error = NodeFailedError("broken", param="plato.plan", retry_after_s=2.0)
    event = RunFailed.of(error, "r", 0.5, RUN)
    assert (event.run_id, event.at_s, event.report) == ("r", 0.5, RUN)
    again = pickle.loads(pickle.dumps(RunError(event)))
    assert isinstance(again, RunError)
    for name in ("message", "status", "type", "code", "param", "retry_after_s"):
        assert getattr(again, name) == getattr(event, name) == getattr(error, name)

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
    Lease,
    Load,
    Prompt,
    SamplingParams,
    Segment,
    StopConditions,
)
from plato.runs import (
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
    RunFailed,
    RunFinished,
    RunReport,
    RunRequest,
)

NODE = Node(2, "Title 東", (1,), max_tokens=5)
PLAN = PlanReport("model", nodes=2, one_probability=0.25, replica="r")
REPORT = NodeReport(2, "Title", (1,), NodeState.DONE, sees=(1,), finish=FinishReason.LENGTH)
RUN = RunReport("r", Mode.AUTO, Mode.PLATO, None, PLAN, (REPORT,), 9, 3, 20, 1.5, ("store",))
SAMPLING = SamplingParams(0.5, 0.9, 7, 1.1, frozenset({3}), ((4, -1.0),))
PROMPT = Prompt((Segment((1, 2), public=True), Segment((3,))), "tenant")

VALUES = [
    RunRequest("r", (Message("user", "Why?"),), "t", Mode.SKELETON, SAMPLING, plan=(NODE,)),
    ModeChosen("r", 0.1, Mode.SEQUENTIAL, "because"),
    NodePlanned("r", 0.1, NODE),
    PlanFinished("r", 0.1, PLAN, None),
    NodeStarted("r", 0.1, 2, 0, REPORT),
    NodeOutput("r", 0.1, 2, 0, 5, (1, 2), "text"),
    NodeFinished("r", 0.1, 2, FinishReason.STOP, REPORT),
    RunFinished("r", 0.1, RUN),
    RunFailed("r", 0.1, 500, "server_error", None, "broken", report=RUN),
    GenerateRequest(
        "r",
        2,
        PROMPT,
        9,
        emitted=(5,),
        sampling=SAMPLING,
        stop=StopConditions(False, ("x",)),
        grammar="start: /a/",
        lease=Lease("owner", 1.5),
    ),
    Chunk(
        "r", 2, 0, 5, (1,), "a", FinishReason.CANCELLED, load=Load(running=1), first=((1, -1.0),)
    ),
    EngineStats("m", "e", "float32", 512, 9, 1, Load(), 1, 2, 3, 4, (("r", 2),)),
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

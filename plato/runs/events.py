"""The events of a run, in the order in which a scheduler emits them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from plato.engine import FinishReason
from plato.errors import PlatoError, UnplannedError
from plato.runs.graph import Node
from plato.runs.report import NodeReport, PlanReport, RunReport
from plato.runs.request import Mode, RunRequest

EVENT_ID = "^[0-9]{1,18}-[0-9]{1,18}$"
"""Numbers that the store can compare."""


class EventId(NamedTuple):
    """Position of an event in its run, written `term-number` as in Redis streams.

    Ids increase, also across a takeover.
    """

    term: int
    """Increases with every scheduler that drives the run and is never reused: 1 for the first,
    then about the Unix time in milliseconds; 0 precedes every event."""
    number: int
    """Position within the term, from 0."""

    def __str__(self) -> str:
        return f"{self.term}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """Read an id. Raises `ValueError`."""
        if not re.fullmatch(EVENT_ID, text):
            raise ValueError(f"{text[:50]!r} is not an event id; one looks like 1-42")
        term, number = text.split("-")
        return cls(int(term), int(number))


BEFORE_ALL = EventId(0, 0)
"""Before the first event of any run."""
FIRST_TERM = 1


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""

    run_id: str
    at_s: float
    """Seconds since the run started."""
    id: EventId = field(default=BEFORE_ALL, kw_only=True, compare=False)
    """Assigned by the scheduler that drives the run."""
    text: str = field(default="", kw_only=True)
    """Text of the composed answer that this event releases."""
    text_offset: int = field(default=0, kw_only=True)
    """Where `text` begins in the answer, in bytes of UTF-8. After a takeover some text can be
    repeated; receivers drop it by its offset."""


@dataclass(frozen=True, slots=True)
class ModeChosen(Event):
    """The mode was chosen; emitted exactly once, before the first text of the answer.

    `reason` says why, unless it is the requested mode.
    """

    mode: Mode
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class NodePlanned(Event):
    """A line of the plan is complete."""

    node: Node
    plan: PlanReport | None = None
    """The plan so far, if the model writes it."""
    plan_tokens: tuple[int, ...] = ()
    """Output tokens of the plan so far, from which another planner can resume."""


@dataclass(frozen=True, slots=True)
class PlanFinished(Event):
    """The plan is complete."""

    report: PlanReport
    reason: str | None = None
    """Why the plan ended early, if it did."""


@dataclass(frozen=True, slots=True)
class NodeQueued(Event):
    """A node was dispatched, for the first time or again, and waits for a decoder to take it."""

    number: int
    attempt: int
    report: NodeReport
    reason: str | None = None
    """Why it is retried, if it is."""
    restarts: bool = False
    """Whether its output so far is dropped, because its decoder cannot resume it. No text of it was
    released."""


@dataclass(frozen=True, slots=True)
class NodeStarted(Event):
    """A decoder has taken a node; `report.replica` names it."""

    number: int
    attempt: int
    report: NodeReport


@dataclass(frozen=True, slots=True)
class NodeOutput(Event):
    """Tokens of a node."""

    number: int
    attempt: int
    offset: int
    """Position of the first token in the node's output, as in `Chunk`; outputs can overlap."""
    tokens: tuple[int, ...]
    node_text: str
    """Text of the node that these tokens complete."""
    cached_tokens: int = 0
    """Prompt tokens whose KV was cached."""
    finish: FinishReason | None = None
    """Set with the node's last tokens; `NodeFinished` follows."""


@dataclass(frozen=True, slots=True)
class NodeFinished(Event):
    """A node ended with all of its output."""

    number: int
    finish: FinishReason
    report: NodeReport


@dataclass(frozen=True, slots=True)
class NodeFailed(Event):
    """A node could not be decoded; the run ends with the same error."""

    number: int
    report: NodeReport
    message: str


@dataclass(frozen=True, slots=True)
class NodeCancelled(Event):
    """A node is not decoded to its end: the run ends without it, or its plan is abandoned."""

    number: int
    report: NodeReport


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """The run succeeded; the last event."""

    report: RunReport


@dataclass(frozen=True, slots=True)
class RunFailed(Event):
    """The run ended with an error; the last event."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    report: RunReport | None = None

    @classmethod
    def of(
        cls, error: PlatoError, run_id: str, at_s: float = 0.0, report: RunReport | None = None
    ) -> Self:
        """The event that reports `error`."""
        return cls(
            run_id,
            at_s,
            status=error.status,
            type=error.type,
            code=error.code,
            message=error.message,
            param=error.param,
            retry_after_s=error.retry_after_s,
            report=report,
        )


RunEvent = (
    ModeChosen
    | NodePlanned
    | PlanFinished
    | NodeQueued
    | NodeStarted
    | NodeOutput
    | NodeFinished
    | NodeFailed
    | NodeCancelled
    | RunFinished
    | RunFailed
)
RunEvents = tuple[RunEvent, ...]
"""Events that are sent together, in order."""

MOVED = frozenset({"handed_over", "taken_over"})
"""Codes of a `RunFailed` that only reports that another scheduler drives the run now."""


ANSWERED_ELSEWHERE = MOVED | {UnplannedError.code}
"""Codes of a `RunFailed` whose question is answered elsewhere, where it is counted and charged."""


class RunError(PlatoError):
    """A run failed in another process; its last event says how."""

    def __init__(self, event: RunFailed) -> None:
        super().__init__(
            event.message, param=event.param, code=event.code, retry_after_s=event.retry_after_s
        )
        self.event = event
        self.status = event.status
        self.type = event.type

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.event,)


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """The current state of a run."""

    request: RunRequest
    events: RunEvents
    """Condensed; see `RunState.events`."""


@dataclass(frozen=True, slots=True)
class RunOverview:
    """A run in a list of runs."""

    request: RunRequest
    """Of one that has ended, with the beginning of its question only."""
    mode: Mode
    status: str
    """`running`, `done`, `failed` or `cancelled`."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """A page of a list of runs, newest first."""

    runs: tuple[RunOverview, ...]
    next_before: str | None
    """Id of the run behind which the list continues; None at its end."""

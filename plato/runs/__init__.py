"""Runs: `request` and `events` cross processes; `state` folds the events.

`composer` (the answer) and `report` (what responses show) are views of the state; `graph` is the
plan; `failover` follows a run whose scheduler fails.
"""

from plato.runs.events import (
    ANSWERED_ELSEWHERE,
    BEFORE_ALL,
    FIRST_TERM,
    MOVED,
    Event,
    EventId,
    ModeChosen,
    NodeCancelled,
    NodeFailed,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeQueued,
    NodeStarted,
    PlanFinished,
    RunError,
    RunEvent,
    RunEvents,
    RunFailed,
    RunFinished,
    RunOverview,
    RunPage,
    RunSnapshot,
)
from plato.runs.graph import Length, Node, PlanGraph
from plato.runs.node_status import NodeStatus
from plato.runs.report import (
    NO_PLAN,
    Answer,
    AnswerFinish,
    Cut,
    NodeReport,
    NodeState,
    PlanReport,
    RunReport,
)
from plato.runs.request import Message, Mode, RunRequest, chars_of
from plato.runs.state import RunState

__all__ = [
    "ANSWERED_ELSEWHERE",
    "BEFORE_ALL",
    "FIRST_TERM",
    "MOVED",
    "NO_PLAN",
    "Answer",
    "AnswerFinish",
    "Cut",
    "Event",
    "EventId",
    "Length",
    "Message",
    "Mode",
    "ModeChosen",
    "Node",
    "NodeCancelled",
    "NodeFailed",
    "NodeFinished",
    "NodeOutput",
    "NodePlanned",
    "NodeQueued",
    "NodeReport",
    "NodeStarted",
    "NodeState",
    "NodeStatus",
    "PlanFinished",
    "PlanGraph",
    "PlanReport",
    "RunError",
    "RunEvent",
    "RunEvents",
    "RunFailed",
    "RunFinished",
    "RunOverview",
    "RunPage",
    "RunReport",
    "RunRequest",
    "RunSnapshot",
    "RunState",
    "chars_of",
]

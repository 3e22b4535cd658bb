"""A run: one question on its way through the system, and what it reports as it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from plato.engine import FinishReason, SamplingParams
from plato.graph import Node


class Mode(StrEnum):
    """How a question is answered."""

    PLATO = "plato"
    """Planned; dependent parts see each other's text."""
    SKELETON = "skeleton"
    """Planned; every part is independent (Skeleton-of-Thought, arXiv 2307.15337)."""
    SEQUENTIAL = "sequential"
    """Ordinary decoding."""
    AUTO = "auto"
    """`plato` or `sequential`, by the model's own probability that splitting helps."""


class NodeState(StrEnum):
    """Where a node is on its way."""

    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the ingress hands to the scheduler: checked, complete, with a seed."""

    run: str
    messages: tuple[Message, ...]
    """The conversation; the last message is the user's question."""
    tenant: str = ""
    mode: Mode = Mode.AUTO
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    """Bounds the composed answer, in tokens."""
    max_nodes: int = 8
    plan: tuple[Node, ...] | None = None
    """A plan handed in by the caller; the planner is not asked then."""
    decode_plan: bool = False
    """Have the planner decode `plan`, token by token, as if it were its own (benchmarks)."""
    exact_lengths: bool = False
    """Decode every node to exactly its `max_tokens`, past the model's end of turn (benchmarks)."""
    include_prompts: bool = False
    """Report the text of every node's prompt."""
    headings: bool = False
    """Put titles above the parts of the answer."""
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class PlanReport:
    """How the plan came about. Times are seconds since the run started."""

    source: str
    """`model` (decoded), `request` (handed in) or `none` (sequential)."""
    nodes: int = 0
    tokens: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    one_probability: float | None = None
    """The model's probability of `[ONE]`, do not split, at the plan's first token."""
    started_s: float = 0.0
    finished_s: float = 0.0
    replica: str = ""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What became of one node. Times are seconds since the run started."""

    number: int
    title: str
    dependencies: tuple[int, ...]
    state: NodeState
    planned_s: float = 0.0
    started_s: float | None = None
    """When it was dispatched."""
    first_token_s: float | None = None
    finished_s: float | None = None
    continues: int | None = None
    """The dependency whose conversation its prompt continues."""
    sees: tuple[int, ...] = ()
    """Every node whose text stands in its prompt."""
    shortened: tuple[int, ...] = ()
    """Nodes whose text was cut in the middle to fit the model's context."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    predicted_cached_tokens: int = 0
    """What placement expected the replica to hold."""
    tokens: int = 0
    attempts: int = 0
    finish: FinishReason | None = None
    replica: str = ""
    epoch: str = ""
    prompt: str | None = None


class EventId(NamedTuple):
    """Where an event stands in its run: ids rise, also when another scheduler takes the run over.

    Written `term-number`, as in Redis streams, which is also where the events are kept.
    """

    term: int
    """Rises with every scheduler that drives the run, and is never given twice: 1 for the first,
    then about the time in milliseconds; 0 is before every event."""
    number: int
    """Counts the events of one term, from 0."""

    def __str__(self) -> str:
        return f"{self.term}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """The id that `text` is. Raises `ValueError` if it is none."""
        term, _, number = text.partition("-")
        if not (term.isascii() and term.isdigit() and number.isascii() and number.isdigit()):
            raise ValueError(f"{text!r} is no id of an event; one looks like 1-42")
        return cls(int(term), int(number))


BEFORE_ALL = EventId(0, 0)
"""Before the first event of any run."""


@dataclass(frozen=True, slots=True)
class Event:
    """Base of what a run reports; `at_s` is seconds since it started."""

    run: str
    at_s: float
    id: EventId = field(default=BEFORE_ALL, kw_only=True, compare=False)
    """Given by the scheduler that drives the run."""


@dataclass(frozen=True, slots=True)
class ModeChosen(Event):
    """The run is answered in `mode` from here on; `reason` says why, if it is not what was asked.

    Sent before the first text of the answer, exactly once.
    """

    mode: Mode
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class NodePlanned(Event):
    """A line of the plan is complete."""

    node: Node
    plan: PlanReport | None = None
    """The plan so far, where the model writes it."""
    plan_tokens: tuple[int, ...] = ()
    """Output tokens of the plan so far, from which another planner can go on."""


@dataclass(frozen=True, slots=True)
class PlanFinished(Event):
    """No more nodes will come."""

    report: PlanReport
    reason: str | None = None
    """Why the plan ended early, if it did."""


@dataclass(frozen=True, slots=True)
class NodeStarted(Event):
    """A node was dispatched, for the first time or again."""

    number: int
    attempt: int
    report: NodeReport
    reason: str | None = None
    """Why it has to go on elsewhere, if it has."""


@dataclass(frozen=True, slots=True)
class NodeOutput(Event):
    """Tokens of a node. `offset` as in `Chunk`: a repeated offset is a repetition."""

    number: int
    attempt: int
    offset: int
    tokens: tuple[int, ...]
    text: str
    cached_tokens: int = 0
    """Prompt tokens that the decoder did not have to compute."""
    finish: FinishReason | None = None
    """Set with the node's last tokens; `NodeFinished` follows."""


@dataclass(frozen=True, slots=True)
class NodeFinished(Event):
    """A node ended."""

    number: int
    finish: FinishReason
    report: NodeReport


@dataclass(frozen=True, slots=True)
class RunReport:
    """The whole run: what the response's `plato` object shows."""

    run: str
    requested_mode: Mode
    mode: Mode
    reason: str | None
    plan: PlanReport
    nodes: tuple[NodeReport, ...]
    prompt_tokens: int
    """Prompt tokens of the question's nodes and plan, cached ones included."""
    cached_tokens: int
    output_tokens: int
    """Tokens of all nodes; the plan's are in `plan.tokens`."""
    duration_s: float
    degraded: tuple[str, ...] = ()
    """What the run had to do without (the context store, for example)."""


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """The run ended well; nothing follows."""

    report: RunReport


@dataclass(frozen=True, slots=True)
class RunFailed(Event):
    """The run ended with an error; nothing follows."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    report: RunReport | None = None


RunEvent = (
    ModeChosen
    | NodePlanned
    | PlanFinished
    | NodeStarted
    | NodeOutput
    | NodeFinished
    | RunFinished
    | RunFailed
)

MOVED = frozenset({"handed_over", "taken_over"})
"""Codes of a `RunFailed` that says only that another scheduler drives the run now."""


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """A run as it stands."""

    request: RunRequest
    events: tuple[RunEvent, ...]
    """A few that say the same as all so far."""

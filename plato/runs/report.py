"""Reports of a run, its plan and its nodes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from plato.engine import FinishReason, SamplingParams
from plato.runs.graph import Length
from plato.runs.request import Mode

AnswerFinish = Literal["stop", "length"]
Cut = Literal["budget", "max_tokens"]
"""Why the answer lacks text of a node: the node used up its own token budget, or the nodes up to it
used up the answer's `max_tokens`."""


class NodeState(StrEnum):
    """Lifecycle of a node."""

    PLANNED = "planned"
    """Waits for its dependencies."""
    QUEUED = "queued"
    """Dispatched; waits for a decoder to take it."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def open(self) -> bool:
        """Whether it can still change."""
        return self in (NodeState.PLANNED, NodeState.QUEUED, NodeState.RUNNING)


@dataclass(frozen=True, slots=True)
class PlanReport:
    """Source, size and cost of the plan. Times are seconds since the run started."""

    source: str
    """`model` (decoded), `request` (handed in) or `none` (sequential)."""
    nodes: int = 0
    tokens: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    one_probability: float | None = None
    """The model's probability of `[ONE]`, not to split, where that was decided (mode `auto`)."""
    started_s: float = 0.0
    finished_s: float = 0.0
    replica: str = ""


NO_PLAN = PlanReport(source="none")


@dataclass(frozen=True, slots=True)
class NodeReport:
    """State and cost of one node. Times are seconds since the run started."""

    number: int
    title: str
    dependencies: tuple[int, ...]
    state: NodeState
    length: Length | None = None
    """Its expected length, if the plan says so."""
    planned_s: float = 0.0
    started_s: float | None = None
    """When it was dispatched."""
    first_token_s: float | None = None
    finished_s: float | None = None
    continues: int | None = None
    """The dependency whose conversation its prompt continues."""
    sees: tuple[int, ...] = ()
    """Nodes whose text is in its prompt."""
    shortened: tuple[int, ...] = ()
    """Nodes whose text was cut in the middle to fit the model's context; those not in `sees` were
    left out."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    predicted_cached_tokens: int = 0
    """Predicted by placement."""
    tokens: int = 0
    answer_tokens: int = 0
    """How many of its tokens are in the answer; counted when the run ends."""
    cut: Cut | None = None
    """Why the answer lacks some or all of its text, if it does; set when the run ends. Text after a
    stop string is not missing."""
    bounded_by_caller: bool = False
    """Whether the caller has set its token budget: its own `max_tokens`, or its share of the
    answer's."""
    attempts: int = 0
    finish: FinishReason | None = None
    replica: str = ""
    epoch: str = ""
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """The whole run, as the response's `plato` object shows it."""

    run_id: str
    requested_mode: Mode
    mode: Mode
    reason: str | None
    plan: PlanReport
    nodes: tuple[NodeReport, ...]
    prompt_tokens: int
    """Prompt tokens of the plan and all nodes, cached ones included."""
    cached_tokens: int
    output_tokens: int
    """Tokens of all nodes; the plan's are in `plan.tokens`."""
    duration_s: float
    sampling: SamplingParams
    """Of the answer; the plan's is the planner's own."""
    first_text_s: float | None = None
    """When the first text of the answer could be shown."""
    conversation_tokens: int = 0
    """Tokens of the caller's conversation as an ordinary prompt: what people are billed. Set when
    the run ends."""
    answer_tokens: int = 0
    """Tokens of the visible answer, of all nodes; `output_tokens` also counts what was cut."""
    finish_reason: AnswerFinish | None = None
    """Set when the answer is complete; see `Composer.finish_reason`."""
    degraded: tuple[str, ...] = ()
    """Services that were unavailable during the run (the context store, for example)."""
    ignored: tuple[str, ...] = ()
    """Names of the request's parameters that had no effect."""

    @property
    def billed_tokens(self) -> int:
        """Tokens of an ordinary answer, and of the plan."""
        return self.conversation_tokens + self.answer_tokens + self.plan.tokens

    @property
    def conversation_cached_tokens(self) -> int:
        """How many of `conversation_tokens` were certainly cached when the run started.

        What was computed of the first prompt, the plan's if there is one, can be all of it.
        """
        begun = [node for node in self.nodes if node.started_s is not None]
        first: PlanReport | NodeReport | None = min(
            begun, key=lambda node: node.started_s or 0.0, default=None
        )
        if self.plan.prompt_tokens or first is None:
            first = self.plan
        computed = first.prompt_tokens - first.cached_tokens
        return max(0, self.conversation_tokens - computed)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    text: str
    report: RunReport

    @property
    def finish_reason(self) -> AnswerFinish:
        """See `Composer.finish_reason`."""
        return self.report.finish_reason or "stop"

    @property
    def tokens(self) -> int:
        """Tokens of the visible text."""
        return self.report.answer_tokens

"""The contract between the scheduler and a planner."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from plato.engine import Lease
from plato.runs import Message, Node


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Request for the plan of one question."""

    run_id: str
    tenant: str
    messages: tuple[Message, ...]
    parts: int
    """Number of parts to ask for."""
    decide: bool
    """Whether the model may decide not to split the answer (mode `auto`)."""
    run_began_unix_s: float = 0.0
    """See `GenerateRequest`."""
    dependencies: bool = True
    """Whether to decide on dependencies; else no node has any (mode `skeleton`)."""
    branch: bool = False
    """See `GenerateRequest`."""
    lease: Lease | None = None
    """The scheduler's lease, passed to the engine: if the scheduler dies, the plan is cancelled."""
    deadline_s: float = 30.0
    script: tuple[Node, ...] = ()
    """A plan to decode instead of the model's own, for planners that support it
    (`plato.testing.equal_work`)."""
    attempt: int = 0
    """Number of earlier attempts; a later attempt has `emitted`."""
    emitted: tuple[int, ...] = ()
    """Output tokens of an earlier attempt (`PlanLine.emitted`). Decoding resumes after them; the
    lines in them are sent again."""
    known: tuple[Node, ...] = ()
    """The nodes of that attempt."""


@dataclass(frozen=True, slots=True)
class PlanStarted:
    """The planning prompt was accepted by this replica."""

    replica: str
    epoch: str


@dataclass(frozen=True, slots=True)
class PlanUsage:
    """Resources used by a plan so far."""

    tokens: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    one_probability: float | None = None


@dataclass(frozen=True, slots=True)
class PlanLine:
    """A line of the plan is complete."""

    node: Node
    usage: PlanUsage = field(default=PlanUsage(), compare=False)
    """Usage up to this line, for a run whose answer is complete before the plan ends."""
    emitted: tuple[int, ...] = field(default=(), compare=False)
    """Output tokens of the plan so far, from which another planner can resume."""


@dataclass(frozen=True, slots=True)
class PlanEnded:
    """The plan has ended; the last event unless `plan` raises."""

    split: bool
    """False: the model chose `[ONE]`; no line was sent."""
    usage: PlanUsage
    reason: str | None = None
    """Why the plan ended early (token budget, deadline, a line that was refused), if it did."""
    refused: str | None = None
    """The title of that line; see `plato.planning.titles.refusal`."""


PlanEvent = PlanStarted | PlanLine | PlanEnded


class Planner(Protocol):
    """Turns a question into nodes, streamed while the plan is being decoded."""

    def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent]:
        """Decode a plan. Closing the iterator cancels the decoding."""
        ...

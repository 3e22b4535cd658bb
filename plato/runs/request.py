"""The request of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from plato.engine import SamplingParams
from plato.runs.graph import Node


class Mode(StrEnum):
    """How a question is answered."""

    PLATO = "plato"
    """Planned; dependent nodes see each other's text."""
    SKELETON = "skeleton"
    """Planned; every node is independent (Skeleton-of-Thought, arXiv 2307.15337)."""
    SEQUENTIAL = "sequential"
    """Ordinary decoding."""
    AUTO = "auto"
    """`plato` or `sequential`, by the model's own probability that splitting helps."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation; `role` is system, user or assistant."""

    role: str
    content: str


MARKUP_CHARS = 100
"""What rendering a message costs, as characters of text: 0.1 ms."""


def chars_of(messages: Iterable[Message]) -> int:
    """Length of messages, by which the time to render and tokenise them grows."""
    return sum(len(message.content) + MARKUP_CHARS for message in messages)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A question for a scheduler: validated and complete; see `plato.api.questions`."""

    run_id: str
    messages: tuple[Message, ...]
    """The conversation; the last message is the user's question."""
    mode: Mode
    sampling: SamplingParams
    max_nodes: int
    deadline_s: float
    tenant: str = ""
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    """Bounds the composed answer, in tokens."""
    plan: tuple[Node, ...] | None = None
    """A plan given by the caller; the planner is not called."""
    decode_plan: bool = False
    """Have the planner decode `plan` as if it were its own. Needs `Settings.equal_work`."""
    exact_lengths: bool = False
    """Decode each node to exactly `max_tokens`, past its end. Needs `Settings.equal_work`."""
    planned_only: bool = False
    """End with `UnplannedError` instead of a sequential answer, which somebody else gives. The run
    is recorded only once it has a plan."""
    include_prompts: bool = False
    """Report the text of every node's prompt."""
    headings: bool = False
    """Put each node's title above its text."""
    detached: bool = False
    """It goes on without its client."""
    raw: bool = False
    """Continue the text of the only message, without the chat template. Such an answer is
    sequential."""
    grammar: str | None = None
    """That the answer must match (`GenerateRequest.grammar`); such an answer is not planned."""
    function: str | None = None
    """Name of the function that the answer calls; its text is the arguments, under `grammar`."""
    ignored: tuple[str, ...] = ()
    """Names of the parameters that the caller sent and that have no effect."""
    metadata: tuple[tuple[str, str], ...] = ()
    """The caller's own, as (name, value)."""
    created_unix_s: float = field(default=0.0, compare=False)
    """When it was received."""
    admitted_unix_s: float = 0.0
    """When a scheduler admitted it; its deadline counts from then. 0: not yet."""
    fingerprint: str = ""
    """Of the model that answers it, and whose tokens its events have; empty: not chosen yet."""
    traceparent: str = ""
    """Names the span of the request that asked for it (W3C Trace Context); empty: none."""
    takeovers: int = 0
    """Schedulers that have driven it and failed."""

    @property
    def planned_mode(self) -> Mode:
        """The mode if the answer follows a plan."""
        return Mode.SKELETON if self.mode is Mode.SKELETON else Mode.PLATO

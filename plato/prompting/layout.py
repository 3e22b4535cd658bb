"""The contract of prompt layouts: from a question, a plan and finished texts to prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from plato.engine import Prompt
from plato.runs.graph import PlanGraph
from plato.runs import Message


@dataclass(frozen=True, slots=True)
class NodeText:
    """A finished node, as a dependent sees it."""

    number: int
    tokens: tuple[int, ...]
    """Decoded token ids as the engine gave them; the last one may be an end-of-turn token."""
    text: str


@dataclass(frozen=True, slots=True)
class NodePrompt:
    """What a node is decoded from."""

    prompt: Prompt
    continues: int | None
    """The dependency whose conversation the prompt goes on with."""
    sees: tuple[int, ...]
    """Every node whose text stands in the prompt, ascending."""
    shortened: tuple[int, ...]
    """Nodes whose text was cut to fit the context, ascending; one that is not in `sees` was left
    out altogether."""


class Conversation(Protocol):
    """The prompts of one run.

    Deterministic: the same question, plan, texts and budgets give the same prompts, in whatever
    order nodes finish and are asked for.
    """

    def node_prompt(
        self,
        graph: PlanGraph,
        number: int,
        finished: Mapping[int, NodeText],
        max_tokens: int,
    ) -> NodePrompt:
        """The prompt of node `number`, of which up to `max_tokens` tokens will be decoded.

        `finished` holds at least everything the node needs, directly or through others. The
        prompt of a number is made once; later calls return the same one. A node that was never
        asked for (it was decoded elsewhere) is taken to have had the budget in the plan, or else
        `max_tokens`. Raises `ContextLengthError` if the question itself leaves too little room.
        """
        ...


class Layout(Protocol):
    """How prompts are laid out for one model."""

    def sequential(self, messages: Sequence[Message], tenant: str) -> Prompt:
        """The ordinary chat prompt. Raises `ContextLengthError` if it leaves no room."""
        ...

    def start(
        self, messages: Sequence[Message], tenant: str, skeleton: bool = False
    ) -> Conversation:
        """Begin a run; the last message is the question. `skeleton` ignores dependencies.

        Raises `ContextLengthError` if the question leaves no room for an answer.
        """
        ...

    def public_prefix(self) -> Prompt:
        """What the prompts of all runs of all tenants start with, to be computed beforehand."""
        ...

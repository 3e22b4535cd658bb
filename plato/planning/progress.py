"""Progress of one plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from plato.engine import Chunk, FinishReason
from plato.planning.protocol import PlanEnded, PlanUsage
from plato.planning.readers import Draft, EndOfPlan, PlanReader
from plato.runs import Node

Refusal = Callable[[str, Sequence[str]], str | None]
"""Why a title is not taken, after the earlier ones; see `plato.planning.titles.refusal`."""


class PlanProgress:
    """What is decoded and decided of a plan so far, and why it ended."""

    def __init__(self, emitted: Sequence[int], reader: PlanReader, refusal: Refusal) -> None:
        """`emitted` are the output tokens of an earlier attempt."""
        self._emitted = list(emitted)
        self._reader = reader
        self._refusal = refusal
        self._titles: list[str] = []
        self._usage = PlanUsage()
        """Of the titles."""
        self._spent = PlanUsage()
        """Of the decisions."""
        self._probability: float | None = None
        self._split = True
        self._reason: str | None = None
        self._refused: str | None = None
        self._nodes: list[Node] = []
        self.over = False
        """Whether the rest of the stream can be ignored."""

    @property
    def emitted(self) -> tuple[int, ...]:
        """Output tokens so far."""
        return tuple(self._emitted)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Those that were sent, with their dependencies."""
        return tuple(self._nodes)

    def add(self, node: Node) -> None:
        """Count a node as sent."""
        self._nodes.append(node)

    def stop(self, reason: str | None) -> None:
        """End the plan here."""
        self.over, self._reason = True, reason

    def decide(self, probability: float | None, *, split: bool, reason: str | None = None) -> None:
        """Take the split decision; if the answer is not split, the plan ends here.

        `reason` says why, if the model did not decide it.
        """
        self._probability, self._split = probability, split
        if not split:
            self.stop(reason)

    def spend(self, decision: Chunk) -> None:
        """Count a decision."""
        spent = self._spent
        self._spent = replace(
            spent,
            tokens=spent.tokens + 1,
            steps=spent.steps + 1,
            prompt_tokens=spent.prompt_tokens + decision.prompt_tokens,
            cached_tokens=spent.cached_tokens + decision.cached_tokens,
        )

    def take(self, chunk: Chunk, text: str) -> list[Draft]:
        """Add `chunk` with its `text`; returns the parts that it completed.

        A title that is refused ends the plan: small models loop when they run out of topics.
        """
        if self.over:
            return []
        self._count(chunk)
        taken: list[Draft] = []
        try:
            for draft in self._reader.feed(text, ended=chunk.finish is FinishReason.STOP):
                self._check(draft.title)
                self._titles.append(draft.title)
                taken.append(draft)
        except EndOfPlan as end:
            self.stop(end.reason)
        else:
            if chunk.finish is FinishReason.LENGTH:
                self.stop("the plan used up its token budget")
            elif chunk.finish is not None:
                self.stop(None)
        return taken

    def usage(self) -> PlanUsage:
        """Resources used by the plan so far, with its decisions."""
        used, spent = self._usage, self._spent
        return PlanUsage(
            tokens=used.tokens + spent.tokens,
            steps=used.steps + spent.steps,
            prompt_tokens=used.prompt_tokens + spent.prompt_tokens,
            cached_tokens=used.cached_tokens + spent.cached_tokens,
            one_probability=self._probability,
        )

    def summary(self) -> PlanEnded:
        """The last event of the plan."""
        return PlanEnded(self._split, self.usage(), reason=self._reason, refused=self._refused)

    def _check(self, title: str) -> None:
        """Raise `EndOfPlan` for a title that is refused."""
        why = self._refusal(title, self._titles)
        if why is not None:
            self._refused = title
            number = len(self._titles) + 1
            raise EndOfPlan(f"the plan ended before its line {number}, {title!r} ({why})")

    def _count(self, chunk: Chunk) -> None:
        self._emitted.extend(chunk.tokens)
        used = self._usage
        self._usage = PlanUsage(
            tokens=chunk.offset + len(chunk.tokens),
            steps=max(used.steps, chunk.steps),
            prompt_tokens=max(used.prompt_tokens, chunk.prompt_tokens),
            cached_tokens=max(used.cached_tokens, chunk.cached_tokens),
        )

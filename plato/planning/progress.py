"""Progress of one plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from plato.engine import Chunk, FinishReason
from plato.planning.grammar import outline_title
from plato.planning.protocol import PlanEnded, PlanUsage
from plato.runs import Node

Refusal = Callable[[str, Sequence[str]], str | None]
"""Why a title is not taken, after the earlier ones; see `plato.planning.titles.refusal`."""


class PlanProgress:
    """What is decoded and decided of a plan so far, and why it ended."""

    def __init__(self, emitted: Sequence[int], refusal: Refusal) -> None:
        """`emitted` are the output tokens of an earlier attempt."""
        self._emitted = list(emitted)
        self._refusal = refusal
        self._text = ""
        """The line that is not complete yet; the token budget bounds it."""
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

    def decide(self, probability: float, *, split: bool) -> None:
        """Take the split decision; if the answer is not split, the plan ends here."""
        self._probability, self._split = probability, split
        if not split:
            self.stop(None)

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

    def take(self, chunk: Chunk, text: str) -> list[str]:
        """Add `chunk` with its `text`; returns the titles that it completed.

        A title that is refused ends the plan: small models loop when they run out of topics.
        """
        if self.over:
            return []
        self._count(chunk)
        *lines, self._text = (self._text + text).split("\n")
        known = len(self._titles)
        for line in lines:
            self._read(line)
            if self.over:
                break
        else:
            if chunk.finish is FinishReason.LENGTH:
                self.stop("the plan used up its token budget")
            elif chunk.finish is not None:
                self.stop(None)
        return self._titles[known:]

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

    def _read(self, line: str) -> None:
        title, number = outline_title(line), len(self._titles) + 1
        if title is None:
            self.stop(f"line {number} of the plan, {line[:60]!r}, is no title")
            return
        why = self._refusal(title, self._titles)
        if why is not None:
            self._refused = title
            self.stop(f"the plan ended before its line {number}, {title!r} ({why})")
            return
        self._titles.append(title)

    def _count(self, chunk: Chunk) -> None:
        self._emitted.extend(chunk.tokens)
        used = self._usage
        self._usage = PlanUsage(
            tokens=chunk.offset + len(chunk.tokens),
            steps=max(used.steps, chunk.steps),
            prompt_tokens=max(used.prompt_tokens, chunk.prompt_tokens),
            cached_tokens=max(used.cached_tokens, chunk.cached_tokens),
        )

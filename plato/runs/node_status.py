"""The state of one node, folded from its events."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from operator import itemgetter

from plato.engine import FinishReason
from plato.runs.events import (
    NodeCancelled,
    NodeFailed,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeQueued,
    NodeStarted,
)
from plato.runs.graph import Node
from plato.runs.report import NodeReport, NodeState


@dataclass(slots=True)
class NodeStatus:
    """One node: its output in one piece, and its other events."""

    number: int
    planned: NodePlanned | None = None
    queued: NodeQueued | None = None
    started: NodeStarted | None = None
    """Of the last attempt, once a decoder has taken it."""
    last: NodeOutput | None = None
    finished: NodeFinished | None = None
    aborted: NodeFailed | NodeCancelled | None = None
    """How it ended without all of its output, if it did; until it is queued again."""
    attempts: int = 0
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish: FinishReason | None = None
    """Set once its output is complete."""
    first_token_s: float | None = None
    """Time of its first token, by its events."""
    visible_s: float | None = None
    """Time of its first text other than white space."""
    _pieces: list[tuple[int, int]] = field(default_factory=list)
    """Token offset and character position at which each output began."""
    _firsts: list[tuple[NodeOutput, int, int]] = field(default_factory=list)
    """The outputs that set these times, with the number of tokens and characters up to each."""

    @property
    def node(self) -> Node:
        """The node of the plan; without a title until it is planned."""
        return self.planned.node if self.planned is not None else Node(self.number, "")

    @property
    def report(self) -> NodeReport:
        """The node's current state."""
        ended = self.aborted or self.finished
        if ended is not None:
            return ended.report
        begun = self.started or self.queued
        report = begun.report if begun is not None else self._planned_report()
        if self.tokens and self.last is not None:
            first_token_s = report.first_token_s
            report = replace(
                report,
                tokens=len(self.tokens),
                cached_tokens=self.last.cached_tokens,
                first_token_s=self.first_token_s if first_token_s is None else first_token_s,
            )
        return report

    def _planned_report(self) -> NodeReport:
        node = self.node
        return NodeReport(
            node.number,
            node.title,
            node.dependencies,
            NodeState.PLANNED,
            node.length,
            planned_s=self.planned.at_s if self.planned is not None else 0.0,
        )

    def begin(self, event: NodeQueued | NodeStarted) -> None:
        """Note an attempt; repetitions and earlier attempts change nothing."""
        if isinstance(event, NodeQueued):
            if self.queued is None or event.attempt > self.queued.attempt:
                self.queued, self.aborted = event, None
                if self.started is not None and self.started.attempt < event.attempt:
                    self.started = None
        elif event.attempt + 1 >= self.attempts:
            self.started = event
        self.attempts = max(self.attempts, event.attempt + 1)

    def take(self, output: NodeOutput) -> None:
        """Add output. Known tokens are dropped; output that would leave a gap is ignored.

        The same rule covers a retried node, an event log with a gap, and a scheduler that resumed
        from fewer tokens than are known here.
        """
        known, end = len(self.tokens), output.offset + len(output.tokens)
        tokens, text = output.tokens, output.node_text
        if self.finish is not None or end < known or output.offset > known:
            return
        if output.offset == 0:
            # All of the node so far in one event, as in a condensed log.
            tokens, text = tokens[known:], text[len(self.text) :]
        elif output.offset < known and not self._cut(output.offset):
            self.finish = output.finish if end == known else None
            return
        self._pieces.append((len(self.tokens), len(self.text)))
        self.tokens.extend(tokens)
        self.text += text
        begun = self.first_token_s is None and bool(tokens)
        visible = self.visible_s is None and bool(text.strip())
        if begun:
            self.first_token_s = output.at_s
        if visible:
            self.visible_s = output.at_s
        if begun or visible:
            self._firsts.append((output, len(self.tokens), len(self.text)))
        self.last = output
        self.attempts = max(self.attempts, output.attempt + 1)
        self.finish = output.finish

    def _cut(self, offset: int) -> bool:
        """Forget the output from `offset` on, if a piece begins there; returns whether one did."""
        index = bisect_left(self._pieces, offset, key=itemgetter(0))
        if index == len(self._pieces) or self._pieces[index][0] != offset:
            return False
        self.text = self.text[: self._pieces[index][1]]
        del self._pieces[index:]
        del self.tokens[offset:]
        return True

    @property
    def output(self) -> NodeOutput | None:
        """All output so far in one event; `None` if there is none."""
        if self.last is None:
            return None
        return replace(
            self.last,
            attempt=max(0, self.attempts - 1),
            offset=0,
            tokens=tuple(self.tokens),
            node_text=self.text,
            finish=self.finish,
        )

    @property
    def outputs(self) -> list[NodeOutput]:
        """The output in a few events, all from offset 0, that preserve `first_token_s`."""
        output = self.output
        if output is None:
            return []
        firsts = [
            replace(
                first,
                offset=0,
                tokens=tuple(self.tokens[:tokens]),
                node_text=self.text[:characters],
                finish=None,
            )
            for first, tokens, characters in self._firsts
            if first is not self.last
        ]
        return [*firsts, output]

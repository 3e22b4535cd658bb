"""The spans of one node: queue, prefill and decode of each attempt."""

from __future__ import annotations

from plato.runs import (
    NodeCancelled,
    NodeFailed,
    NodeFinished,
    NodeOutput,
    NodeQueued,
    NodeStarted,
)
from plato.tracing import attributes as names
from plato.tracing.span import Span, SpanEvent

NodeEvent = NodeQueued | NodeStarted | NodeOutput | NodeFinished | NodeFailed | NodeCancelled

QUEUE, PREFILL, DECODE = "queue", "prefill", "decode"
TAKEN_OVER = "another scheduler took the run over"


class NodeSpans:
    """Builds the span of a node, from its dispatch to its end, and one for each phase below it.

    Events before a takeover are condensed: of the attempts until then only the last one is known,
    and it can begin with its first token.
    """

    def __init__(self, number: int, at_s: float, attributes: names.Values) -> None:
        self.span = Span(f"node {number}", at_s, at_s, {**attributes})
        self.ended = False
        self._replica = ""

    def feed(self, event: NodeEvent, at_s: float) -> None:
        """Apply an event that happened at `at_s`."""
        match event:
            case NodeQueued():
                if self.span.children:
                    self._fail_attempt(event, at_s)
                self._begin(QUEUE, event.attempt, at_s)
            case NodeStarted():
                self._replica = event.report.replica
                self._begin(PREFILL, event.attempt, at_s)
            case NodeOutput():
                phases = self.span.children
                if event.tokens and not (phases and phases[-1].name == DECODE):
                    self._begin(DECODE, event.attempt, at_s)
            case NodeFinished() | NodeFailed() | NodeCancelled():
                self._end(event, at_s)

    def _begin(self, phase: str, attempt: int, at_s: float) -> None:
        self._close(at_s)
        values: names.Values = {names.ATTEMPT: attempt, names.REPLICA: self._replica or None}
        self.span.children.append(Span(phase, at_s, at_s, values))

    def _close(self, at_s: float) -> None:
        if self.span.children:
            self.span.children[-1].end_s = at_s

    def _fail_attempt(self, retry: NodeQueued, at_s: float) -> None:
        reason = retry.reason or TAKEN_OVER
        self.span.children[-1].error = reason
        values: names.Values = {
            names.ATTEMPT: retry.attempt,
            names.REASON: reason,
            names.REPLICA: self._replica or None,
        }
        self.span.events.append(SpanEvent("retry", at_s, values))
        self._replica = ""

    def _end(self, event: NodeFinished | NodeFailed | NodeCancelled, at_s: float) -> None:
        self._close(at_s)
        self.ended, self.span.end_s = True, at_s
        self.span.attributes |= names.of_node(event.report)
        first = next((phase for phase in self.span.children if phase.name == DECODE), None)
        if first is not None:
            self.span.attributes[names.FIRST_TOKEN_S] = first.start_s - self.span.start_s
        if isinstance(event, NodeFailed):
            self.span.error = self.span.children[-1].error = event.message

"""The spans of a run, derived from its events when it has ended."""

from __future__ import annotations

from collections.abc import Iterable

from plato.runs import (
    FIRST_TERM,
    Mode,
    ModeChosen,
    NodeCancelled,
    NodeFailed,
    NodePlanned,
    NodeQueued,
    PlanFinished,
    PlanReport,
    RunEvent,
    RunFailed,
    RunFinished,
    RunState,
)
from plato.tracing import attributes as names
from plato.tracing.node_spans import NodeEvent, NodeSpans
from plato.tracing.span import Span, SpanEvent


def run_span(
    state: RunState, events: Iterable[RunEvent], model: str, *, texts: bool = False
) -> Span:
    """The span of a run that has ended; below it its admission, its plan and its nodes.

    `events` are all of its events, those before a takeover condensed; `model` is the name of the
    model. With `texts`, attributes have the question, the titles and the answer.
    """
    spans = _RunSpans(state, model, texts=texts)
    for event in events:
        spans.feed(event)
    return spans.end()


class _RunSpans:
    """Folds events into spans.

    The clock of the events stands while no scheduler drives the run. What it says is Unix time
    since the admission, and since each takeover, whose Unix time is the term of its events.
    """

    def __init__(self, state: RunState, model: str, *, texts: bool) -> None:
        request = state.request
        self._state = state
        self._model = model
        self._texts = texts
        self._inference = names.inference(request, model)
        received_s, admitted_s = request.created_unix_s, request.admitted_unix_s
        # A scheduler that is asked after another one has died does not know when that admitted it.
        self._zero_s = admitted_s or received_s
        """Unix time at which the clock of the events was 0."""
        self._term = FIRST_TERM
        self._at_s = 0.0
        """The latest time of an event."""
        began_s = min(received_s or self._zero_s, self._zero_s)
        self._span = Span(f"invoke_workflow {names.PLATO}", began_s, began_s)
        if received_s and admitted_s:
            self._span.children.append(Span("admission", began_s, admitted_s))
        self._plan: Span | None = None
        self._planned = False
        """Whether no more lines of the plan come."""
        self._nodes: dict[int, NodeSpans] = {}
        """By number, the latest."""

    def feed(self, event: RunEvent) -> None:
        """Apply an event."""
        if event.id.term > self._term:
            self._take_over(event.id.term)
        self._at_s = max(self._at_s, event.at_s)
        at_s = self._zero_s + event.at_s
        match event:
            case ModeChosen():
                # What is planned from then on is the whole answer, as its only node.
                self._planned = self._planned or event.mode is Mode.SEQUENTIAL
                mode = {"plato.mode": event.mode, names.REASON: event.reason}
                self._span.events.append(SpanEvent("mode_chosen", at_s, mode))
            case NodePlanned():
                self._add_line(event, at_s)
            case PlanFinished():
                self._planned = True
                if event.report.source != "none":
                    self._end_plan(event.report, at_s)
            case RunFinished() | RunFailed():
                self._span.end_s = at_s
            case _:
                self._feed_node(event, at_s)

    def end(self) -> Span:
        """The span, after the last event."""
        report, ended = self._state.report(), self._state.ended
        if self._plan is not None and not self._plan.attributes:
            self._end_plan(report.plan, self._span.end_s)
        self._span.attributes |= names.of_run(self._state.request, report, self._model)
        self._span.attributes |= names.outcome(ended)
        if isinstance(ended, RunFailed) and names.ERROR_TYPE in self._span.attributes:
            self._span.error = ended.message
        if self._texts:
            self._span.attributes |= names.texts_of_run(self._state)
            for number, status in self._state.nodes.items():
                if number in self._nodes:
                    self._nodes[number].span.attributes |= names.texts_of_node(status)
        return self._span

    def _take_over(self, term: int) -> None:
        self._term = term
        taken_over_s = term / 1000
        self._zero_s = taken_over_s - self._at_s
        self._span.events.append(SpanEvent("takeover", taken_over_s, {}))

    def _add_line(self, line: NodePlanned, at_s: float) -> None:
        if self._planned:
            return
        plan = self._plan or self._begin_plan(line.plan, at_s)
        values: names.Values = {
            names.NODE: line.node.number,
            names.DEPENDENCIES: line.node.dependencies,
        }
        if self._texts:
            values[names.TITLE] = line.node.title
        plan.events.append(SpanEvent("node_planned", at_s, values))

    def _begin_plan(self, report: PlanReport | None, at_s: float) -> Span:
        """A plan that the caller gave has no report yet, and takes no time."""
        begun_s = at_s if report is None else self._zero_s + report.started_s
        self._plan = Span("plan", begun_s, at_s)
        self._span.children.append(self._plan)
        return self._plan

    def _end_plan(self, report: PlanReport, at_s: float) -> None:
        plan = self._plan or self._begin_plan(report, at_s)
        plan.end_s = at_s
        if report.source == "model":
            plan.attributes |= self._inference
        plan.attributes |= names.of_plan(report)

    def _feed_node(self, event: NodeEvent, at_s: float) -> None:
        node = self._nodes.get(event.number)
        if node is None or (node.ended and isinstance(event, NodeQueued)):
            if isinstance(event, NodeCancelled | NodeFailed):
                # It was planned, and never dispatched.
                return
            node = self._nodes[event.number] = NodeSpans(event.number, at_s, self._inference)
            self._span.children.append(node.span)
        if not node.ended:
            node.feed(event, at_s)

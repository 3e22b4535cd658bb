"""The state of a run, folded from its events; the only fold.

The scheduler that drives a run composes and reports from it; an ingress keeps one to hand the run
to another scheduler. A state can be condensed into a few equivalent events, so taking over a run
means replaying them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from operator import attrgetter
from typing import Self, TypeVar

from plato.engine import SamplingParams
from plato.runs.events import (
    BEFORE_ALL,
    Event,
    ModeChosen,
    NodeCancelled,
    NodeFailed,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeQueued,
    NodeStarted,
    PlanFinished,
    RunError,
    RunEvent,
    RunEvents,
    RunFailed,
    RunFinished,
)
from plato.runs.graph import Node
from plato.runs.node_status import NodeStatus
from plato.runs.report import NO_PLAN, Answer, PlanReport, RunReport
from plato.runs.request import Mode, RunRequest

E = TypeVar("E", bound=Event)

_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that do not begin a character."""


class RunState:
    """A run, folded from its events; bounded like the run's output."""

    def __init__(self, request: RunRequest, events: Iterable[RunEvent] = ()) -> None:
        self.request = request
        self.nodes: dict[int, NodeStatus] = {}
        self.ended: RunFinished | RunFailed | None = None
        """The last event, once the run has ended."""
        self.last_id = BEFORE_ALL
        """The highest id so far."""
        self.at_s = 0.0
        """Time of the last event, in seconds since the run started."""
        self.text_bytes = 0
        """Length of the released text in UTF-8."""
        self.text_missing = False
        """Whether released text began after a gap, as in a damaged event log."""
        self._released: list[str] = []
        self._mode: ModeChosen | None = None
        self._plan: PlanFinished | None = None
        for event in events:
            self.feed(event)

    @classmethod
    def of_events(cls, events: Iterable[RunEvent] = ()) -> Self:
        """The state of a run of which only the events are known; its request is a placeholder."""
        unknown = RunRequest("", (), Mode.AUTO, SamplingParams(), max_nodes=0, deadline_s=0.0)
        return cls(unknown, events)

    def feed(self, event: RunEvent) -> str:
        """Apply an event; returns the text it releases that is new here.

        Repetitions change nothing; text after a gap is ignored (see `text_missing`).
        """
        self.last_id = max(self.last_id, event.id)
        self.at_s = max(self.at_s, event.at_s)
        match event:
            case ModeChosen():
                if event.mode is Mode.SEQUENTIAL and self.mode is not Mode.SEQUENTIAL:
                    # The answer is one node; nodes of an abandoned plan do not count.
                    self.nodes.clear()
                self._mode = _without_text(event)
            case NodePlanned():
                self.node(event.node.number).planned = _without_text(event)
            case PlanFinished():
                self._plan = _without_text(event)
            case NodeQueued() | NodeStarted():
                self.node(event.number).begin(_without_text(event))
            case NodeOutput():
                self.node(event.number).take(_without_text(event))
            case NodeFinished():
                node = self.node(event.number)
                if event.report.tokens == len(node.tokens):
                    node.finished, node.finish = _without_text(event), event.finish
            case NodeFailed() | NodeCancelled():
                self.node(event.number).aborted = _without_text(event)
            case RunFinished() | RunFailed():
                self.ended = _without_text(event)
        return self.release(event.text, event.text_offset)

    def release(self, text: str, offset: int) -> str:
        """Add released text that begins at byte `offset`; returns what is new here.

        If another scheduler composed different text and the cut splits a character, each of its
        remaining bytes becomes `?`, so that offsets stay correct.
        """
        if not text:
            return ""
        if offset > self.text_bytes:
            self.text_missing = True
            return ""
        data = text.encode()
        if offset < self.text_bytes:
            data = data[self.text_bytes - offset :]
            whole = data.lstrip(_CONTINUATION_BYTES)
            text = "?" * (len(data) - len(whole)) + whole.decode()
        self.text_bytes += len(data)
        self._released.append(text)
        return text

    def node(self, number: int) -> NodeStatus:
        """The status of a node, created empty if it is not known yet."""
        return self.nodes.setdefault(number, NodeStatus(number))

    @property
    def text(self) -> str:
        """The answer so far."""
        if len(self._released) > 1:
            self._released = ["".join(self._released)]
        return self._released[0] if self._released else ""

    @property
    def mode(self) -> Mode | None:
        """The mode, once it is chosen."""
        return self._mode.mode if self._mode is not None else None

    @property
    def plan_complete(self) -> bool:
        """Whether no more nodes will come."""
        return self._plan is not None

    @property
    def plan(self) -> PlanReport:
        """The report of the plan so far."""
        if self._plan is not None:
            return self._plan.report
        reports = (planned.plan for planned in reversed(self._planned()))
        return next((report for report in reports if report is not None), NO_PLAN)

    @property
    def plan_tokens(self) -> tuple[int, ...]:
        """Output tokens of the plan so far."""
        return max((planned.plan_tokens for planned in self._planned()), key=len, default=())

    @property
    def planned_nodes(self) -> tuple[Node, ...]:
        """The nodes planned so far."""
        return tuple(planned.node for planned in self._planned())

    @property
    def first_text_s(self) -> float | None:
        """When the first text could be shown, in seconds since the run started."""
        if self._mode is None or not self.text_bytes:
            return None
        shown_s = self._mode.at_s
        for _, node in sorted(self.nodes.items()):
            if node.visible_s is not None:
                return max(shown_s, node.visible_s)
            if node.last is not None:
                # A node without text holds back the next one until it has ended.
                shown_s = max(shown_s, node.last.at_s)
        return None

    @property
    def settled(self) -> bool:
        """Whether every node has finished and no more can come."""
        return self.plan_complete and all(n.finished is not None for n in self.nodes.values())

    def report(self) -> RunReport:
        """The run's current or final state."""
        if self.ended is not None and self.ended.report is not None:
            return self.ended.report
        nodes = tuple(node.report for _, node in sorted(self.nodes.items()))
        plan = self.plan
        reasons = [event.reason for event in (self._mode, self._plan) if event and event.reason]
        return RunReport(
            run_id=self.request.run_id,
            requested_mode=self.request.mode,
            mode=self.mode or self.request.mode,
            reason="; ".join(dict.fromkeys(reasons)) or None,
            plan=plan,
            nodes=nodes,
            prompt_tokens=plan.prompt_tokens + sum(node.prompt_tokens for node in nodes),
            cached_tokens=plan.cached_tokens + sum(node.cached_tokens for node in nodes),
            output_tokens=sum(node.tokens for node in nodes),
            duration_s=self.at_s,
            sampling=self.request.sampling,
            first_text_s=self.first_text_s,
            ignored=self.request.ignored,
        )

    def answer(self) -> Answer:
        """The complete answer. Raises `RunError` if the run failed."""
        if isinstance(self.ended, RunFailed):
            raise RunError(self.ended)
        if self.ended is None:
            raise AssertionError("the run has not ended")
        return Answer(self.text, self.ended.report)

    def events(self) -> RunEvents:
        """A few events, by ascending id, that are equivalent to all events so far.

        None contains anything newer than its id; the last one carries all of the released text.
        """
        events: list[RunEvent | None] = [self._mode, *self._planned(), self._plan]
        for _, node in sorted(self.nodes.items()):
            events += [node.queued, node.started, *node.outputs, node.finished, node.aborted]
        events.append(self.ended)
        condensed = sorted((e for e in events if e is not None), key=attrgetter("id"))
        if condensed:
            # The text may be newer than the other contents of the last event.
            last = replace(condensed[-1], id=self.last_id, text=self.text, text_offset=0)
            condensed[-1] = last
        return tuple(condensed)

    def _planned(self) -> list[NodePlanned]:
        nodes = (node.planned for _, node in sorted(self.nodes.items()))
        return [planned for planned in nodes if planned is not None]


def _without_text(event: E) -> E:
    """The event without released text, which the state stores separately."""
    return replace(event, text="", text_offset=0) if event.text_offset or event.text else event

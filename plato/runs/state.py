"""Everything that is known of a run from its events.

The one place where events are folded. The scheduler that drives a run composes, reports and
resumes from it; an ingress keeps one to hand the run on when its scheduler dies, and to report. A
state gives back a few events that say the same as all it was fed, so taking over a run is
replaying them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import attrgetter, itemgetter
from typing import TypeVar

from plato.engine import FinishReason
from plato.runs.events import (
    BEFORE_ALL,
    Event,
    ModeChosen,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeStarted,
    PlanFinished,
    RunError,
    RunEvent,
    RunEvents,
    RunFailed,
    RunFinished,
)
from plato.runs.graph import Node
from plato.runs.report import NO_PLAN, Answer, NodeReport, NodeState, PlanReport, RunReport
from plato.runs.request import Mode, RunRequest

E = TypeVar("E", bound=Event)

_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))
"""Bytes of UTF-8 that do not begin a character."""


@dataclass(slots=True)
class NodeStatus:
    """One node: its output in one piece, and the events that say the rest."""

    number: int
    planned: NodePlanned | None = None
    started: NodeStarted | None = None
    last: NodeOutput | None = None
    finished: NodeFinished | None = None
    failed: NodeReport | None = None
    """Set by the scheduler: a node that cannot be decoded ends the run, so there is no event."""
    attempts: int = 0
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish: FinishReason | None = None
    """Set once all of its output is here."""
    first_token_s: float | None = None
    """When its first token came, as its events say."""
    visible_s: float | None = None
    """When its first text other than white space came."""
    _pieces: list[tuple[int, int]] = field(default_factory=list)
    """Token offset and character position at which each output began."""
    _firsts: list[tuple[NodeOutput, int, int]] = field(default_factory=list)
    """The outputs that set these times, and the tokens and characters there were then."""

    @property
    def title(self) -> str:
        """The title, as far as it is known."""
        return self.planned.node.title if self.planned is not None else ""

    @property
    def report(self) -> NodeReport:
        """The node as it stands."""
        if self.failed is not None:
            return self.failed
        if self.finished is not None:
            return self.finished.report
        report = self.started.report if self.started is not None else self._planned_report()
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
        node = self.planned.node if self.planned is not None else Node(self.number, "")
        return NodeReport(
            node.number,
            node.title,
            node.dependencies,
            NodeState.PLANNED,
            planned_s=self.planned.at_s if self.planned is not None else 0.0,
        )

    def take(self, output: NodeOutput) -> None:
        """Add output. What is here already is dropped; what would leave a gap is ignored.

        The only rule for offsets: the same for a retried node, an event log with a gap, and a
        scheduler that resumed from less than is known here.
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
        """Forget the output from `offset` on, if a piece begins there.

        The piece that follows comes from a scheduler that resumed from less than is known here.
        """
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
        """The output in a few events, all from offset 0, which also say when it began."""
        firsts = [
            replace(
                output,
                offset=0,
                tokens=tuple(self.tokens[:tokens]),
                node_text=self.text[:characters],
                finish=None,
            )
            for output, tokens, characters in self._firsts
            if output is not self.last
        ]
        return firsts if self.output is None else [*firsts, self.output]


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
        """Whether text was released that begins behind a gap, as in a damaged event log."""
        self._released: list[str] = []
        self._mode: ModeChosen | None = None
        self._plan: PlanFinished | None = None
        for event in events:
            self.feed(event)

    def feed(self, event: RunEvent) -> str:
        """Take an event; returns the text it releases that was not here yet.

        Repetitions change nothing; text behind a gap is ignored (see `text_missing`).
        """
        self.last_id = max(self.last_id, event.id)
        self.at_s = max(self.at_s, event.at_s)
        match event:
            case ModeChosen():
                if event.mode is Mode.SEQUENTIAL and self.mode is not Mode.SEQUENTIAL:
                    # The answer is one node, whatever a plan had begun before.
                    self.nodes.clear()
                self._mode = _without_text(event)
            case NodePlanned():
                self.node(event.node.number).planned = _without_text(event)
            case PlanFinished():
                self._plan = _without_text(event)
            case NodeStarted():
                node = self.node(event.number)
                if event.attempt + 1 >= node.attempts:
                    node.started, node.attempts = _without_text(event), event.attempt + 1
            case NodeOutput():
                self.node(event.number).take(_without_text(event))
            case NodeFinished():
                node = self.node(event.number)
                if event.report.tokens == len(node.tokens):
                    node.finished, node.finish = _without_text(event), event.finish
            case RunFinished() | RunFailed():
                self.ended = _without_text(event)
        return self.release(event.text, event.text_offset)

    def release(self, text: str, offset: int) -> str:
        """Add released text that begins at byte `offset`; returns what was not here yet.

        Where another scheduler composed other text and the cut falls into a character, `?` takes
        the place of each of its bytes that is left, so that offsets stay right.
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
        """The status of a node, empty if nothing is known of it yet."""
        return self.nodes.setdefault(number, NodeStatus(number))

    @property
    def text(self) -> str:
        """The answer so far."""
        if len(self._released) > 1:
            self._released = ["".join(self._released)]
        return self._released[0] if self._released else ""

    @property
    def mode(self) -> Mode | None:
        """How the question is answered, once that is known."""
        return self._mode.mode if self._mode is not None else None

    @property
    def plan_complete(self) -> bool:
        """Whether no more nodes will come."""
        return self._plan is not None

    @property
    def plan(self) -> PlanReport:
        """The plan as far as it is known."""
        if self._plan is not None:
            return self._plan.report
        reports = (planned.plan for planned in reversed(self._planned()))
        return next((report for report in reports if report is not None), NO_PLAN)

    @property
    def plan_tokens(self) -> tuple[int, ...]:
        """Output tokens of the plan, as far as they are known."""
        return max((planned.plan_tokens for planned in self._planned()), key=len, default=())

    @property
    def planned_nodes(self) -> tuple[Node, ...]:
        """The plan so far."""
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
                # Nodes after one without text are shown once that has ended.
                shown_s = max(shown_s, node.last.at_s)
        return None

    @property
    def settled(self) -> bool:
        """Whether every node has finished and no more can come."""
        return self.plan_complete and all(n.finished is not None for n in self.nodes.values())

    def report(self) -> RunReport:
        """The run as it stands, or as it ended."""
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
            first_text_s=self.first_text_s,
        )

    def answer(self) -> Answer:
        """The complete answer. Raises `RunError` if the run failed."""
        if isinstance(self.ended, RunFailed):
            raise RunError(self.ended)
        if self.ended is None:
            raise AssertionError("the run has not ended")
        return Answer(self.text, self.ended.report)

    def events(self) -> RunEvents:
        """A few events, in the order of their ids, that say the same as all so far.

        Each says nothing that was not known at its id; the released text comes with the last.
        """
        events: list[RunEvent | None] = [self._mode, *self._planned(), self._plan]
        for _, node in sorted(self.nodes.items()):
            events += [node.started, *node.outputs, node.finished]
        events.append(self.ended)
        condensed = sorted((e for e in events if e is not None), key=attrgetter("id"))
        if condensed:
            # Text can have come with an event that said nothing else, so the id is the highest.
            last = replace(condensed[-1], id=self.last_id, text=self.text, text_offset=0)
            condensed = [replace(e, text_offset=self.text_bytes) for e in condensed[:-1]] + [last]
        return tuple(condensed)

    def _planned(self) -> list[NodePlanned]:
        nodes = (node.planned for _, node in sorted(self.nodes.items()))
        return [planned for planned in nodes if planned is not None]


def _without_text(event: E) -> E:
    """The event without released text, which the state keeps in one piece."""
    return replace(event, text="", text_offset=0) if event.text_offset or event.text else event

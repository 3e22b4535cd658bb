"""What is known of a run from its events: enough for another scheduler to go on with it.

Whoever follows a run keeps a history: an ingress, to hand the run on when its scheduler dies; a
scheduler, from the event log. A history gives back a few events that say the same as all it has
been fed, so taking a run over is replaying them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from operator import attrgetter, itemgetter

from plato.engine import FinishReason
from plato.graph import Node
from plato.reporting import NO_PLAN
from plato.runs import (
    BEFORE_ALL,
    EventId,
    Mode,
    ModeChosen,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeStarted,
    PlanFinished,
    PlanReport,
    RunEvent,
    RunFailed,
    RunFinished,
)


@dataclass(slots=True)
class _Part:
    """The events of one node, its output in one piece."""

    planned: NodePlanned | None = None
    started: NodeStarted | None = None
    first: NodeOutput | None = None
    last: NodeOutput | None = None
    tokens: list[int] = field(default_factory=list)
    pieces: list[tuple[int, str]] = field(default_factory=list)
    """Offset and text of what brought the tokens, in order."""
    finish: FinishReason | None = None
    finished: NodeFinished | None = None
    attempts: int = 0

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.pieces)

    def cut(self, offset: int) -> bool:
        """Forget the tokens from `offset` on, if a piece begins there."""
        place = bisect_left(self.pieces, offset, key=itemgetter(0))
        if place == len(self.pieces) or self.pieces[place][0] != offset:
            return False
        del self.pieces[place:]
        del self.tokens[offset:]
        return True

    def output(self) -> NodeOutput | None:
        if self.first is None or self.last is None:
            return None
        return replace(
            self.first,
            # So that a reader who has seen some of it gets it.
            id=self.last.id,
            attempt=max(0, self.attempts - 1),
            offset=0,
            tokens=tuple(self.tokens),
            text=self.text,
            finish=self.finish,
        )


class History:
    """The events of one run, condensed; bounded like the run's output."""

    def __init__(self, events: Iterable[RunEvent] = ()) -> None:
        self._mode: ModeChosen | None = None
        self._plan: PlanFinished | None = None
        self._parts: dict[int, _Part] = {}
        self._ended: RunFinished | RunFailed | None = None
        self._last = BEFORE_ALL
        self.at_s = 0.0
        """When the last event was, in seconds since the run started."""
        for event in events:
            self.feed(event)

    def feed(self, event: RunEvent) -> None:
        """Take an event. Repetitions change nothing; gaps in a node's output are left out."""
        self._last = max(self._last, event.id)
        self.at_s = max(self.at_s, event.at_s)
        match event:
            case ModeChosen():
                if event.mode is Mode.SEQUENTIAL and self.mode is not Mode.SEQUENTIAL:
                    # The answer is one node of its own, whatever a plan had begun before.
                    self._parts.clear()
                self._mode = event
            case NodePlanned():
                self._part(event.node.number).planned = event
            case PlanFinished():
                self._plan = event
            case NodeStarted():
                part = self._part(event.number)
                part.started = event
                part.attempts = max(part.attempts, event.attempt + 1)
            case NodeOutput():
                self._take(event)
            case NodeFinished():
                part = self._part(event.number)
                if event.report.tokens == len(part.tokens):
                    part.finished, part.finish = event, event.finish
            case RunFinished() | RunFailed():
                self._ended = event

    @property
    def mode(self) -> Mode | None:
        """How the question is answered, once that is known."""
        return self._mode.mode if self._mode is not None else None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The plan so far."""
        planned = (part.planned for _, part in sorted(self._parts.items()))
        return tuple(event.node for event in planned if event is not None)

    @property
    def planned_s(self) -> dict[int, float]:
        """When each node's line was complete, in seconds since the run started."""
        return {
            number: part.planned.at_s
            for number, part in self._parts.items()
            if part.planned is not None
        }

    @property
    def plan_complete(self) -> bool:
        """Whether no more nodes will come."""
        return self._plan is not None

    @property
    def plan(self) -> PlanReport:
        """The plan as far as it is known."""
        if self._plan is not None:
            return self._plan.report
        planned = (part.planned for _, part in sorted(self._parts.items()))
        reports = [event.plan for event in planned if event is not None and event.plan is not None]
        return reports[-1] if reports else NO_PLAN

    @property
    def plan_tokens(self) -> tuple[int, ...]:
        """Output tokens of the plan, as far as they are known."""
        planned = [part.planned for part in self._parts.values() if part.planned is not None]
        return max((event.plan_tokens for event in planned), key=len, default=())

    @property
    def ended(self) -> RunFinished | RunFailed | None:
        """The last event, if the run has ended."""
        return self._ended

    @property
    def last_id(self) -> EventId:
        """The highest id so far."""
        return self._last

    def attempts(self, number: int) -> int:
        """How often a node was started."""
        part = self._parts.get(number)
        return part.attempts if part is not None else 0

    def output(self, number: int) -> NodeOutput | None:
        """All output of a node so far, in one event; none if it has brought nothing."""
        part = self._parts.get(number)
        return part.output() if part is not None else None

    def finished(self, number: int) -> NodeFinished | None:
        """The end of a node, if it has ended."""
        part = self._parts.get(number)
        return part.finished if part is not None else None

    def events(self) -> tuple[RunEvent, ...]:
        """A few events that say the same as all so far, by id.

        In the order of ids, each says nothing that was not known at its id.
        """
        events: list[RunEvent | None] = [self._mode]
        events += [part.planned for _, part in sorted(self._parts.items())]
        events.append(self._plan)
        for _, part in sorted(self._parts.items()):
            events += [part.started, part.output(), part.finished]
        events.append(self._ended)
        return tuple(sorted((event for event in events if event is not None), key=attrgetter("id")))

    def _part(self, number: int) -> _Part:
        return self._parts.setdefault(number, _Part())

    def _take(self, output: NodeOutput) -> None:
        part = self._part(output.number)
        known, end = len(part.tokens), output.offset + len(output.tokens)
        if part.finish is not None:
            return
        if end <= known and output.offset < known:
            part.finish = output.finish if end == known else None
            return
        if output.offset == 0:
            # All of the node in one piece, as an event log has it after a gap.
            tokens, text = output.tokens[known:], output.text[len(part.text) :]
        elif output.offset == known or (output.offset < known and part.cut(output.offset)):
            # The latter where another scheduler has gone on from less than is known here.
            tokens, text = output.tokens, output.text
        else:
            return
        place = len(part.tokens)
        part.first = part.first or output
        part.last = output
        part.tokens.extend(tokens)
        part.pieces.append((place, text))
        part.attempts = max(part.attempts, output.attempt + 1)
        part.finish = output.finish

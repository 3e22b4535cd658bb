"""The composer: puts the node texts together into the answer, in plan order, while they stream.

The answer is the texts of the nodes, each stripped of white space at both ends, separated by a
blank line; a node without text leaves no trace. Whatever the order in which nodes run and however
their output is cut into chunks, the concatenated releases are the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from plato.engine import FinishReason
from plato.errors import NodeFailedError
from plato.runs import (
    Mode,
    ModeChosen,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    PlanFinished,
    RunEvent,
    RunFinished,
    RunReport,
)
from plato.text import UNFINISHED

SEPARATOR = "\n\n"
"""Stands between two parts, and between a heading and its text."""

AnswerFinish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer."""

    text: str
    finish_reason: AnswerFinish
    report: RunReport
    tokens: int
    """Tokens of the visible text; `report` also counts what was decoded and cut."""
    first_text_s: float | None = None


class StopMatcher:
    """Finds the first of several stop strings in a text that arrives in pieces.

    The match that ends first counts, so the result does not depend on how the text is cut.
    """

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self._strings = tuple(strings)
        self._held = ""
        """Could be the start of a stop string; shorter than the longest of them."""
        self.matched = False

    def feed(self, piece: str) -> str:
        """The text that `piece` makes safe to show; it ends before a match."""
        if self.matched:
            return ""
        text = self._held + piece
        matches = [
            (start + len(string), start)
            for string in self._strings
            if (start := text.find(string)) >= 0
        ]
        if matches:
            self.matched = True
            self._held = ""
            return text[: min(matches)[1]]
        safe = len(text) - self._open_suffix(text)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """The text still held back, when no more comes."""
        held, self._held = self._held, ""
        return held

    def _open_suffix(self, text: str) -> int:
        """Length of the longest suffix of `text` that begins a stop string."""
        longest = max((len(string) for string in self._strings), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(string.startswith(text[-length:]) for string in self._strings):
                return length
        return 0


@dataclass(slots=True)
class _Part:
    """What is known of one node."""

    title: str = ""
    ids: list[int] = field(default_factory=list)
    text: str = ""
    shown: int = 0
    """Leading characters of `text` that are released, skipped white space included."""
    finish: FinishReason | None = None


class Composer:
    """Turns the events of one run into text that can be shown now.

    A node streams live when every node before it is finished; other nodes are kept until their
    turn. Nothing is shown before the run's mode is known. Pure and synchronous; it holds one
    answer and its token ids, bounded by the token budgets of the nodes.

    Args:
        decode: Text of a node's first output tokens, special tokens skipped. Called where
            `max_tokens` falls into the middle of a chunk, and where a chunk repeats some tokens.
        headings: Put `## title` above each part; a sequential answer has no titles.
        max_tokens: Bound of the answer, in output tokens of the nodes in plan order.
        stop: The answer ends before the first of these. They are matched on the composed text,
            separators and headings included, so nodes must be decoded without them.
    """

    def __init__(
        self,
        decode: Callable[[tuple[int, ...]], str],
        *,
        headings: bool = False,
        max_tokens: int | None = None,
        stop: Iterable[str] = (),
    ) -> None:
        self._decode = decode
        self._headings = headings
        self._max_tokens = max_tokens
        self._budget = max_tokens
        """Tokens left for the current node and those after it; None is no bound."""
        self._stop = StopMatcher(stop)
        self._parts: dict[int, _Part] = {}
        self._current = 1
        self._plan_complete = False
        self._mode: Mode | None = None
        self._composed_any = False
        self._cut = False
        """Something that should be visible was cut."""
        self._finish_reason: AnswerFinish | None = None
        self._released: list[str] = []
        self._first_text_s: float | None = None

    @property
    def text(self) -> str:
        """Everything released so far."""
        return "".join(self._released)

    @property
    def done(self) -> bool:
        """Nothing more can become visible: what still decodes can be cancelled."""
        return self._finish_reason is not None

    @property
    def finish_reason(self) -> AnswerFinish | None:
        """`length` if anything that should be visible was cut, else `stop`; None until `done`."""
        return self._finish_reason

    @property
    def tokens(self) -> int:
        """Output tokens of the nodes up to the current one, within `max_tokens`.

        So far as text was shown: what other nodes have decoded beyond a cut does not count.
        """
        shown = sum(
            len(part.ids) for number, part in self._parts.items() if number <= self._current
        )
        return shown if self._max_tokens is None else min(shown, self._max_tokens)

    @property
    def first_text_s(self) -> float | None:
        """When the first text was released, in seconds since the run started."""
        return self._first_text_s

    def feed(self, event: RunEvent) -> str:
        """Take an event; returns the text that can be shown now, often none.

        Raises:
            NodeFailedError: Tokens of a node are missing, or the run ended without some of it.
        """
        match event:
            case ModeChosen() if self._mode is None:
                if event.mode is Mode.SEQUENTIAL:
                    # The answer is one node of its own, whatever a plan had begun before.
                    self._parts = {1: _Part()}
                    self._plan_complete = True
                self._mode = event.mode
            case NodePlanned():
                self._part(event.node.number).title = event.node.title
            case PlanFinished():
                self._plan_complete = True
            case NodeOutput():
                self._take(event)
            case NodeFinished():
                part = self._part(event.number)
                part.finish = part.finish or event.finish
            case _:
                pass
        released = self._advance()
        if isinstance(event, RunFinished) and not self.done:
            raise NodeFailedError(
                f"the run ended without all of part {self._current}; send the question again"
            )
        if released:
            self._released.append(released)
            if self._first_text_s is None:
                self._first_text_s = event.at_s
        return released

    def _part(self, number: int) -> _Part:
        return self._parts.setdefault(number, _Part())

    def _take(self, output: NodeOutput) -> None:
        part = self._part(output.number)
        end = output.offset + len(output.tokens)
        if part.finish is not None or (end <= len(part.ids) and output.offset < len(part.ids)):
            return  # A repetition: an earlier attempt has already brought these tokens.
        if output.offset == 0:
            # All of the node in one piece, as an event log has it after a gap.
            part.ids.extend(output.tokens[len(part.ids) :])
            part.text += output.text[len(part.text) :]
            return
        if output.offset > len(part.ids):
            raise NodeFailedError(
                f"tokens {len(part.ids)} to {output.offset} of part {output.number} are missing; "
                "send the question again"
            )
        known = len(part.ids) - output.offset
        part.ids.extend(output.tokens[known:])
        if known:
            # Another scheduler has gone on from less than is known here: which of the text is new
            # only the tokens tell.
            text = self._decode(tuple(part.ids)).rstrip(UNFINISHED)
            part.text = text if text.startswith(part.text) else part.text
        else:
            part.text += output.text

    def _advance(self) -> str:
        """Show what the nodes' state allows, node after node."""
        pieces: list[str] = []
        while self._mode is not None and not self.done:
            part = self._parts.get(self._current)
            if part is None:
                if self._plan_complete:
                    pieces.append(self._end())
                break
            pieces.append(self._show(part))
            if self.done or part.finish is None:
                break
            self._cut = self._cut or part.finish is not FinishReason.STOP
            if self._budget is not None:
                self._budget -= len(part.ids)
            self._current += 1
        return "".join(pieces)

    def _show(self, part: _Part) -> str:
        """New visible text of the current node."""
        # A part that begins with no budget left is cut, however little it would have said: only
        # so can the rest be cancelled without waiting for it.
        cut = self._budget is not None and (self._budget == 0 or len(part.ids) > self._budget)
        text = self._within_budget(part) if cut else part.text
        # White space at the end waits for more text, and is dropped if none comes.
        visible = text[part.shown :].rstrip()
        if part.shown == 0:
            visible = visible.lstrip()
        released = ""
        if visible:
            lead = self._lead(part) if part.shown == 0 else ""
            part.shown = len(text.rstrip())
            released = self._stop.feed(lead + visible)
            self._composed_any = True
        if self._stop.matched:
            self._finish_reason = "length" if self._cut else "stop"
        elif cut:
            self._cut = True
            released += self._end()
        return released

    def _within_budget(self, part: _Part) -> str:
        """Text of the tokens of `part` that `max_tokens` leaves."""
        text = self._decode(tuple(part.ids[: self._budget])) if self._budget else ""
        text = text.rstrip(UNFINISHED)
        # What has been shown cannot be taken back, should a tokenizer not agree with it.
        return text if text.startswith(part.text[: part.shown]) else part.text[: part.shown]

    def _lead(self, part: _Part) -> str:
        """What stands between the text so far and the first text of `part`."""
        lead = SEPARATOR if self._composed_any else ""
        if self._headings and part.title and self._mode is not Mode.SEQUENTIAL:
            lead += f"## {part.title}{SEPARATOR}"
        return lead

    def _end(self) -> str:
        self._finish_reason = "length" if self._cut else "stop"
        return self._stop.flush()

"""The composer: joins the node texts into the answer, in plan order, while they stream.

The answer is the texts of the nodes, each stripped of white space at both ends, separated by a
blank line. A node without text leaves no trace, and a code block that a cut leaves open is closed.
What continues a text (`RunRequest.raw`) keeps its white space, with which it follows that text.
Whatever the order in which nodes run and however their output is cut into chunks, the concatenated
releases are the same text.
"""

from __future__ import annotations

from collections.abc import Callable

from plato.engine import FinishReason, StopMatcher, without_unfinished
from plato.runs.node_status import NodeStatus
from plato.runs.report import AnswerFinish, Cut
from plato.runs.request import Mode
from plato.runs.state import RunState

SEPARATOR = "\n\n"
"""Between the texts of two nodes, and between a heading and its text."""

FENCE = "```"
CLOSING = f"\n{FENCE}"


class Composer:
    """A view of a run's state: the text that can be shown now.

    A node streams live once every earlier node is finished; later nodes are held back. Nothing is
    shown before the run's mode is known. Pure and synchronous.
    """

    def __init__(self, state: RunState, decode: Callable[[tuple[int, ...]], str]) -> None:
        """Compose the answer of `state` as its request asks.

        `max_tokens` bounds the answer, in output tokens of the nodes in plan order. `stop` strings
        are matched on the composed text, separators and headings included, so nodes must be
        decoded without them. `headings` puts `## title` above the text of each node.

        Args:
            state: The run; the caller feeds it.
            decode: Text of a node's first output tokens, special tokens skipped. Called where
                `max_tokens` falls into the middle of a chunk.
        """
        self._state = state
        self._decode = decode
        self._headings = state.request.headings
        self._raw = state.request.raw
        self._budget = state.request.max_tokens
        """Tokens left for the current node and those after it; `None` is no bound."""
        self._stop = StopMatcher(state.request.stop)
        self._current = 1
        self._shown = 0
        """Characters of the current node that are released, skipped white space included."""
        self._composed_any = False
        self._exhausted = False
        """Whether `max_tokens` cut the current node, and with it all later ones."""
        self._finish_reason: AnswerFinish | None = None
        self.released_bytes = 0
        """Length of the released text in UTF-8."""

    @property
    def done(self) -> bool:
        """Whether no more text can become visible; nodes still being decoded can be cancelled."""
        return self._finish_reason is not None

    @property
    def finish_reason(self) -> AnswerFinish | None:
        """`length` if the caller's limits, or those of a sequential answer, cut visible text.

        Else `stop`, also if a part used up the budget that the deployment gives it: the answer goes
        on behind it, and raising `max_tokens` would not help. `None` until `done`.
        """
        return self._finish_reason

    @property
    def current(self) -> int:
        """The node whose text is being shown, or comes next."""
        return self._current

    @property
    def tokens(self) -> int:
        """Output tokens of the nodes up to the current one, within `max_tokens`."""
        return sum(map(self.node_tokens, self._state.nodes))

    def node_tokens(self, number: int) -> int:
        """The share of a node in `tokens`."""
        if number > self._current:
            return 0
        tokens = len(self._state.nodes[number].tokens)
        if number < self._current or self._budget is None:
            return tokens
        return min(tokens, self._budget)

    def cut(self, number: int) -> Cut | None:
        """Why text of a node that should be visible was cut, if it was."""
        if number >= self._current:
            return "max_tokens" if self._exhausted else None
        return None if self._state.nodes[number].finish is FinishReason.STOP else "budget"

    def shows(self, number: int) -> bool:
        """Whether text of a node may have been released."""
        return number < self._current or (number == self._current and self._shown > 0)

    def advance(self) -> str:
        """The text that has become visible since the last call, often none."""
        released: list[str] = []
        while self._state.mode is not None and not self.done:
            node = self._state.nodes.get(self._current)
            if node is None:
                if self._state.plan_complete:
                    released.append(self._end())
                break
            released.append(self._show(node))
            if self.done or node.finish is None:
                break
            if self._budget is not None:
                self._budget -= len(node.tokens)
            self._current += 1
            self._shown = 0
        text = "".join(released)
        self.released_bytes += len(text.encode())
        return text

    def _show(self, node: NodeStatus) -> str:
        """New visible text of the current node."""
        # A node that begins with no budget left is cut at once, so that the rest can be cancelled
        # without waiting for its first token.
        cut = self._budget is not None and (self._budget == 0 or len(node.tokens) > self._budget)
        text = self._within_budget(node) if cut else node.text
        # White space at the end waits for more text, and is dropped if none comes.
        kept = text if self._raw else text.rstrip()
        visible = kept[self._shown :]
        if self._shown == 0 and not self._raw:
            visible = visible.lstrip()
        released = ""
        if visible:
            lead = self._lead(node) if self._shown == 0 else ""
            self._shown = len(kept)
            released = self._stop.feed(lead + visible)
            self._composed_any = True
        if (cut or node.finish is FinishReason.LENGTH) and self._leaves_open(text):
            released += self._stop.feed(CLOSING)
        if self._stop.matched:
            self._finish_reason = self._reason()
        elif cut:
            self._exhausted = True
            released += self._end()
        return released

    def _leaves_open(self, text: str) -> bool:
        """Whether a part that is cut would swallow the next ones as code."""
        return self._state.mode is not Mode.SEQUENTIAL and text.count(FENCE) % 2 == 1

    def _within_budget(self, node: NodeStatus) -> str:
        """Text of the tokens of `node` that `max_tokens` leaves."""
        text = self._decode(tuple(node.tokens[: self._budget])) if self._budget else ""
        text = without_unfinished(text)
        # Shown text cannot be taken back, even if the tokenizer decodes the tokens differently.
        shown = node.text[: self._shown]
        return text if text.startswith(shown) else shown

    def _lead(self, node: NodeStatus) -> str:
        """The separator and heading before the first text of `node`."""
        lead = SEPARATOR if self._composed_any else ""
        title = node.node.title
        if self._headings and title and self._state.mode is not Mode.SEQUENTIAL:
            lead += f"## {title}{SEPARATOR}"
        return lead

    def _end(self) -> str:
        self._finish_reason = self._reason()
        return self._stop.flush()

    def _reason(self) -> AnswerFinish:
        return "length" if any(map(self._cut_by_limit, self._state.nodes.values())) else "stop"

    def _cut_by_limit(self, node: NodeStatus) -> bool:
        cut = self.cut(node.number)
        whole = self._state.mode is Mode.SEQUENTIAL
        return cut == "max_tokens" or (cut == "budget" and (whole or node.report.bounded_by_caller))

"""A drawing of a plan graph for terminals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from plato.display.levels import levels
from plato.display.numbers import counted, listed
from plato.runs import NodeReport, NodeState

MARGIN = 2
"""Cells of the brackets."""
GAP = 2
"""Cells between labels and bars."""
BAR_WIDTH = 32
MIN_WIDTH = 64
"""Narrower terminals show no bars."""
_STYLES = {
    NodeState.PLANNED: "dim",
    NodeState.QUEUED: "dim",
    NodeState.RUNNING: "bold cyan",
    NodeState.DONE: "green",
}


@dataclass(frozen=True, slots=True)
class _Signs:
    """What a drawing is made of; every sign is one cell wide."""

    alone: str
    """Before the only part of a level; the next three join several parts."""
    first: str
    middle: str
    last: str
    more: str
    """Before further lines of a part that is not the last of its level."""
    below: str
    """Between two levels."""
    waiting: str
    decoding: str
    states: Mapping[NodeState, str]

    def margins(self, parts: int) -> list[tuple[str, str]]:
        """For each part of a level, the signs before its first line and before all others."""
        if parts == 1:
            return [(self.alone, " ")]
        inner = [(self.middle, self.more)] * (parts - 2)
        return [(self.first, self.more), *inner, (self.last, " ")]


_BOXES = _Signs("─", "┌", "├", "└", "│", "▼", "·", "█", dict(zip(NodeState, "·▹▸✓✗✗", strict=True)))
_ASCII = _Signs(
    "-", "/", "|", "\\", "|", "v", ".", "#", dict(zip(NodeState, ".:>+xx", strict=True))
)


class GraphDrawing:
    """The parts of a plan by level, with what each needs and when it was decoded.

    A bracket joins the parts of a level. Fits any width; long titles are wrapped. Where the
    terminal's encoding is not a UTF, the drawing is ASCII, and characters of titles that cannot be
    encoded become `?`.
    """

    def __init__(
        self,
        heading: str,
        nodes: Sequence[NodeReport],
        *,
        until_s: float | None = None,
        latest: Mapping[int, str] | None = None,
    ) -> None:
        """Draw a plan, or what is known of it so far.

        Args:
            heading: The line above it.
            nodes: The parts, in plan order.
            until_s: End of the time bars, in seconds since the run started. `None` draws the plan
                alone, without states, tokens and times.
            latest: Text to show below a part, by its number.
        """
        self._heading = heading
        self._nodes = nodes
        self._until_s = until_s
        self._latest = latest or {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lines of at most the console's width."""
        signs = _ASCII if options.ascii_only else _BOXES
        labels = {node.number: self._label(node, signs, options.encoding) for node in self._nodes}
        heading = Text(self._heading, style="bold")
        bars, column = self._bar_width(options.max_width), 0
        room = max(2, options.max_width - MARGIN)
        if bars:
            heading.append(f"  {signs.waiting} waits  {signs.decoding} decodes", style="dim")
            # The bars stand close to the labels if all of these are short.
            widest = max(text.cell_len for text in (heading, *labels.values()))
            room = min(widest, room - GAP - bars)
            column = MARGIN + room + GAP
            heading = _beside(heading, column, Text(self._scale(bars), style="dim"))
        yield heading
        for depth, level in enumerate(levels(self._nodes)):
            if depth:
                yield Text(signs.below, style="dim")
            for node, (begin, more) in zip(level, signs.margins(len(level)), strict=True):
                first, *rest = labels[node.number].wrap(console, room)
                if latest := self._latest.get(node.number):
                    text = Text(_encodable(latest, options.encoding), style="dim")
                    rest += text.wrap(console, room)
                line = Text.assemble((f"{begin} ", "dim"), first)
                yield _beside(line, column, self._bar(node, bars, signs)) if bars else line
                for line in rest:
                    yield Text.assemble((f"{more} ", "dim"), line)

    def _label(self, node: NodeReport, signs: _Signs, encoding: str) -> Text:
        title = _encodable(f"{node.number} {node.title}", encoding)
        needs = f"  needs {listed(node.dependencies)}" if node.dependencies else ""
        if self._until_s is None:
            return Text.assemble(title, (needs, "dim"))
        label = Text(f"{signs.states[node.state]} {title}", style=_STYLES.get(node.state, ""))
        label.append(f"{needs}  {counted(node.tokens, 'token')}", style="dim")
        if node.cut is not None:
            label.append("  cut" if node.answer_tokens else "  left out", style="yellow")
        return label

    def _bar_width(self, width: int) -> int:
        """Cells of the time bars, 0 for none."""
        return min(BAR_WIDTH, width // 4) if self._until_s and width >= MIN_WIDTH else 0

    def _scale(self, width: int) -> str:
        return f"0 s{f'{self._until_s or 0:.1f} s':>{width - 3}}"

    def _bar(self, node: NodeReport, width: int, signs: _Signs) -> Text:
        """From the moment when the part was planned to its end; at least one cell is decoding."""
        end_s = self._until_s or 0.0

        def cell(seconds: float | None) -> int:
            return width if seconds is None else min(width, round(seconds / end_s * width))

        planned, started = cell(node.planned_s), cell(node.started_s)
        if node.started_s is None:
            return Text(" " * planned + signs.waiting * (width - planned), style="dim")
        started = min(started, width - 1)
        finished = max(started + 1, cell(node.finished_s))
        bar = Text(" " * planned + signs.waiting * (started - planned), style="dim")
        return bar.append(signs.decoding * (finished - started), style=_STYLES.get(node.state, ""))


def _beside(left: Text, width: int, right: Text) -> Text:
    """`left`, cut or padded to `width` cells, then `right`."""
    left.truncate(width, pad=True)
    return Text.assemble(left, right)


def _encodable(text: str, encoding: str) -> str:
    return text.encode(encoding, "replace").decode(encoding)

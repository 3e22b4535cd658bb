"""A run at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from plato.api.answers.run_info import PlatoInfo
from plato.display.graph import GraphDrawing
from plato.display.notes import notes
from plato.display.numbers import counted, listed
from plato.runs import Mode, NodeReport

NARROW = 64
"""Terminals narrower than this show the most important columns only."""


def summary(info: PlatoInfo) -> RenderableType:
    """The graph, unless the answer is sequential; the figures of the parts; totals; notes."""
    nodes = info.graph.nodes
    drawn: list[RenderableType] = []
    if info.mode is not Mode.SEQUENTIAL:
        heading = f"plan ({info.mode})"
        drawn = [GraphDrawing(heading, nodes, until_s=info.timings.duration_s), Text()]
    return Group(*drawn, _Figures(nodes), brief(info))


def brief(info: PlatoInfo) -> RenderableType:
    """Totals, the run's id, and notes."""
    run = Text(f"run {info.run}", style="dim")
    return Group(Text(", ".join(_totals(info)), style="dim"), run, notes(info))


class _Figures:
    """A table with a row a part, which fits any width."""

    def __init__(self, nodes: tuple[NodeReport, ...]) -> None:
        self._nodes = nodes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, with fewer columns on a narrow terminal."""
        wide = options.max_width >= NARROW
        columns = {
            name: figure for name, figure in _COLUMNS.items() if wide or name not in _WIDE_ONLY
        }
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in columns:
            table.add_column(name, justify="right")
        for node in self._nodes:
            table.add_row(*(figure(node) for figure in columns.values()))
        yield table


def _totals(info: PlatoInfo) -> Iterator[str]:
    timings, plan = info.timings, info.plan
    yield f"mode {info.mode}"
    yield f"{timings.duration_s:.1f} s"
    if timings.first_text_s is not None:
        yield f"first text after {timings.first_text_s:.1f} s"
    if plan.source == "model":
        work = f"{counted(plan.tokens, 'token')} in {counted(plan.steps, 'step')}"
        yield f"plan {timings.plan_s:.1f} s" + (f" ({work})" if plan.tokens else "")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


_COLUMNS: dict[str, Callable[[NodeReport], str]] = {
    "part": lambda node: str(node.number),
    "sees": lambda node: listed(node.sees) or "-",
    "start": lambda node: _seconds(node.started_s),
    "first": lambda node: _seconds(node.first_token_s),
    "end": lambda node: _seconds(node.finished_s),
    "tokens": lambda node: str(node.tokens),
    "prompt": lambda node: str(node.prompt_tokens),
    "cached": lambda node: str(node.cached_tokens),
}
_WIDE_ONLY = ("sees", "first", "prompt", "cached")

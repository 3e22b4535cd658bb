"""A run at its end."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from plato.api.answers.run_info import PlatoInfo
from plato.display.graph import GraphDrawing
from plato.display.notes import notes
from plato.display.numbers import listed
from plato.runs import Mode, NodeReport


def summary(info: PlatoInfo) -> RenderableType:
    """The graph, unless the answer is sequential; the figures of the parts; totals; notes."""
    nodes = info.graph.nodes
    drawn: list[RenderableType] = []
    if info.mode is not Mode.SEQUENTIAL:
        heading = f"plan ({info.mode})"
        drawn = [GraphDrawing(heading, nodes, until_s=info.timings.duration_s), Text()]
    return Group(*drawn, _figures(nodes), Text(", ".join(_totals(info))), notes(info))


def _figures(nodes: tuple[NodeReport, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("part", "sees", "start", "first", "end", "tokens", "prompt", "cached"):
        table.add_column(name, justify="right")
    for node in nodes:
        table.add_row(
            str(node.number),
            listed(node.sees) or "-",
            _seconds(node.started_s),
            _seconds(node.first_token_s),
            _seconds(node.finished_s),
            str(node.tokens),
            str(node.prompt_tokens),
            str(node.cached_tokens),
        )
    return table


def _totals(info: PlatoInfo) -> Iterator[str]:
    timings, plan = info.timings, info.plan
    yield f"mode {info.mode}"
    yield f"{timings.duration_s:.1f} s"
    if timings.first_text_s is not None:
        yield f"first text after {timings.first_text_s:.1f} s"
    if plan.source == "model":
        decoded = f" ({plan.tokens} tokens in {plan.steps} steps)" if plan.tokens else ""
        yield f"plan {timings.plan_s:.1f} s{decoded}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

"""Rendering of runs on the terminal: live progress and final figures."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from plato.engine import SamplingParams
from plato.runs import Mode, NodeState, RunEvent, RunRequest, RunState

TAIL_CHARS = 70
_MARKS = {
    NodeState.PLANNED: "·",
    NodeState.RUNNING: "▸",
    NodeState.DONE: "✓",
    NodeState.CANCELLED: "✗",
    NodeState.FAILED: "✗",
}
_STYLES = {NodeState.PLANNED: "dim", NodeState.RUNNING: "bold cyan", NodeState.DONE: "green"}

_OBSERVED = RunRequest("", (), Mode.AUTO, SamplingParams(), max_nodes=0, deadline_s=0.0)
"""A placeholder; the request is not shown."""


class RunView:
    """A run on the terminal."""

    def __init__(self) -> None:
        self.state = RunState(_OBSERVED)

    def feed(self, event: RunEvent) -> None:
        """Apply an event."""
        self.state.feed(event)

    def render(self, *, progress: bool = True) -> RenderableType:
        """A tree with one line per part; with `progress`, its state and latest text."""
        state = self.state
        tree = Tree(Text(f"plan ({state.mode or 'deciding'})", style="bold"))
        for node in state.report().nodes:
            needs = f"  needs {', '.join(map(str, node.dependencies))}" if node.dependencies else ""
            mark = f"{_MARKS[node.state]} " if progress else ""
            style = _STYLES.get(node.state, "") if progress else ""
            line = Text(f"{mark}{node.number} {node.title}", style=style)
            line.append(needs, style="dim")
            branch = tree.add(line)
            if not progress:
                continue
            line.append(f"  {node.tokens} tokens", style="dim")
            text = state.nodes[node.number].text
            if node.state is NodeState.RUNNING and text:
                branch.add(
                    Text(" ".join(text[-2 * TAIL_CHARS :].split())[-TAIL_CHARS:], style="dim")
                )
        if not state.plan_complete and state.mode is not Mode.SEQUENTIAL:
            tree.add(Text("planning …", style="dim"))
        return tree


def figures(info: dict[str, Any]) -> RenderableType:
    """The figures of a finished run: its parts with their times, and a line of totals."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("part", min_width=16)
    for name in ("needs", "sees", "start", "first", "end", "tokens", "prompt", "cached"):
        table.add_column(name, justify="right")
    for node in info["graph"]["nodes"]:
        table.add_row(
            Text(f"{node['number']} {node['title']}"),
            _numbers(node["dependencies"]),
            _numbers(node["sees"]),
            _seconds(node["started_s"]),
            _seconds(node["first_token_s"]),
            _seconds(node["finished_s"]),
            str(node["tokens"]),
            str(node["prompt_tokens"]),
            str(node["cached_tokens"]),
        )
    timings = info["timings"]
    sums = [f"mode {info['mode']}", f"{timings['duration_s']:.1f} s"]
    if timings["first_text_s"] is not None:
        sums.append(f"first text after {timings['first_text_s']:.1f} s")
    plan = info["plan"]
    if plan["source"] == "model":
        decoded = f" ({plan['tokens']} tokens in {plan['steps']} steps)" if plan["tokens"] else ""
        sums.append(f"plan {timings['plan_s']:.1f} s{decoded}")
    notes = [Text(f"note: {info['reason']}", style="yellow")] if info["reason"] else []
    notes += [Text(f"note: no {what}", style="yellow") for what in info["degraded"]]
    return Group(table, Text(", ".join(sums)), *notes)


def _numbers(numbers: list[int]) -> str:
    return ",".join(map(str, numbers)) or "-"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

"""A run on the terminal: its parts as they grow, and its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

TAIL_CHARS = 70
_MARKS = {"planned": "·", "running": "▸", "done": "✓", "cancelled": "✗", "failed": "✗"}
_STYLES = {"planned": "dim", "running": "bold cyan", "done": "green"}


@dataclass(slots=True)
class Part:
    """One part of the answer, as the terminal shows it."""

    number: int
    title: str
    dependencies: list[int] = field(default_factory=list)
    state: str = "planned"
    tokens: int = 0
    text: str = ""


class RunView:
    """Follows the events of a run; `render` shows where it stands."""

    def __init__(self) -> None:
        self.parts: dict[int, Part] = {}
        self.mode: str | None = None
        self.reason: str | None = None
        self.plan_complete = False

    def feed(self, event: dict[str, Any]) -> None:
        """Take an event in its JSON form."""
        match event["type"]:
            case "mode_chosen":
                self.mode, self.reason = event["mode"], event["reason"]
                if self.mode == "sequential":
                    self.parts.clear()
            case "node_planned":
                node = event["node"]
                self.parts[node["number"]] = Part(
                    node["number"], node["title"], list(node["dependencies"])
                )
            case "plan_finished":
                self.plan_complete = True
                self.reason = event["reason"] or self.reason
            case "node_started":
                self.parts[event["number"]].state = "running"
            case "node_output":
                part = self.parts[event["number"]]
                part.tokens += len(event["tokens"])
                part.text += event["text"]
            case "node_finished":
                self.parts[event["number"]].state = "done"
            case _:
                pass

    def render(self, *, progress: bool = True) -> RenderableType:
        """A tree with a line for each part; with `progress`, where each stands."""
        tree = Tree(Text(f"plan ({self.mode or 'deciding'})", style="bold"))
        for part in self.parts.values():
            needs = f"  needs {', '.join(map(str, part.dependencies))}" if part.dependencies else ""
            mark = f"{_MARKS.get(part.state, '?')} " if progress else ""
            style = _STYLES.get(part.state, "") if progress else ""
            line = Text(f"{mark}{part.number} {part.title}", style=style)
            line.append(needs, style="dim")
            branch = tree.add(line)
            if not progress:
                continue
            line.append(f"  {part.tokens} tokens", style="dim")
            if part.state == "running" and part.text:
                branch.add(Text(" ".join(part.text.split())[-TAIL_CHARS:], style="dim"))
        if not self.plan_complete and self.mode != "sequential":
            tree.add(Text("planning …", style="dim"))
        return tree


def figures(info: dict[str, Any]) -> RenderableType:
    """What a finished run reports: its parts with their times, and a line of sums."""
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
    notes += [Text(f"went without the {what}", style="yellow") for what in info["degraded"]]
    return Group(table, Text(", ".join(sums)), *notes)


def _numbers(numbers: list[int]) -> str:
    return ",".join(map(str, numbers)) or "-"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

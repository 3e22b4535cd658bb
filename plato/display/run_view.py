"""A run while it goes on."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from plato.display.graph import GraphDrawing
from plato.runs import Mode, NodeState, RunEvent, RunState

TAIL_CHARS = 70


class RunView:
    """A run on the terminal."""

    def __init__(self) -> None:
        self.state = RunState.of_events()

    def feed(self, event: RunEvent) -> None:
        """Apply an event."""
        self.state.feed(event)

    def render(self, *, progress: bool = True) -> RenderableType:
        """The graph so far; with `progress`, the state, times and latest text of every part."""
        state = self.state
        latest = {
            number: _end_of(node.text)
            for number, node in state.nodes.items()
            if progress and node.report.state is NodeState.RUNNING
        }
        drawing = GraphDrawing(
            f"plan ({state.mode or 'deciding'})",
            state.report().nodes,
            until_s=state.at_s if progress else None,
            latest=latest,
        )
        if state.plan_complete or state.mode is Mode.SEQUENTIAL:
            return drawing
        return Group(drawing, Text("planning ...", style="dim"))


def _end_of(text: str) -> str:
    """The last words, on one line."""
    end = " ".join(text[-2 * TAIL_CHARS :].split())
    if len(end) <= TAIL_CHARS:
        return end
    # One more character tells whether a word begins there.
    cut = end[-TAIL_CHARS - 1 :]
    return cut.partition(" ")[2] or cut[1:]

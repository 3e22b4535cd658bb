"""Rendering of runs: on the terminal live progress, the plan graph, and the summary of a run.

`RunView` shows a run while it goes on, `summary` what there is to know at its end; both draw the
graph with `GraphDrawing`. `graph_svg` and `graph_mermaid` draw it for documents.
"""

from plato.display.cuts import mark_cuts
from plato.display.graph import GraphDrawing
from plato.display.mermaid import graph_mermaid
from plato.display.notes import notes
from plato.display.run_view import RunView
from plato.display.summary import brief, summary
from plato.display.svg import graph_svg

__all__ = [
    "GraphDrawing",
    "RunView",
    "brief",
    "graph_mermaid",
    "graph_svg",
    "mark_cuts",
    "notes",
    "summary",
]

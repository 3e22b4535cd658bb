"""A plan graph as a Mermaid diagram, which Markdown of many sites shows."""

from __future__ import annotations

from collections.abc import Sequence

from plato.runs import NodeReport

_ENTITIES = str.maketrans({sign: f"#{ord(sign)};" for sign in '"#&<>`\\\n'})
"""What would end a label or be markup in it."""


def graph_mermaid(nodes: Sequence[NodeReport]) -> str:
    """A flowchart of the parts, an arrow from each to those that need it."""
    lines = ["flowchart LR"]
    lines += [f'    n{n.number}["{n.number} {n.title.translate(_ENTITIES)}"]' for n in nodes]
    lines += [f"    n{other} --> n{node.number}" for node in nodes for other in node.dependencies]
    return "\n".join(lines) + "\n"

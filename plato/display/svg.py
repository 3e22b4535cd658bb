"""A plan graph as SVG, for notebooks and documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from plato.display.levels import levels
from plato.runs import NodeReport, NodeState

WIDTH, HEIGHT = 230, 48
"""Of a part, in pixels."""
GAP_X, GAP_Y = 48, 14
MARGIN = 4
TITLE_CHARS = 28
_COLOURS = {
    NodeState.DONE: "#2e8b57",
    NodeState.RUNNING: "#1e88c8",
    NodeState.FAILED: "#c0392b",
    NodeState.CANCELLED: "#c0392b",
}
_OTHERS = "#888888"
_STYLE = "font-family: system-ui, sans-serif; max-width: 100%; height: auto"


def graph_svg(nodes: Sequence[NodeReport]) -> str:
    """The parts from left to right by level, joined with those that need them.

    Text has the colour of what is around, so it can be read on any background.
    """
    columns = levels(nodes)
    places = {
        node.number: (MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
        for column, level in enumerate(columns)
        for row, node in enumerate(level)
    }
    width = max((x for x, _ in places.values()), default=0) + WIDTH + MARGIN
    height = max((y for _, y in places.values()), default=0) + HEIGHT + GAP_Y
    content = [edge for node in nodes for edge in _edges(node, places)]
    content += [_part(node, *places[node.number]) for node in nodes]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" fill="currentColor" font-size="13" role="img" '
        f'aria-label="plan with {len(nodes)} parts" style="{_STYLE}">{"".join(content)}</svg>'
    )


def _edges(node: NodeReport, places: dict[int, tuple[int, int]]) -> Iterator[str]:
    """Curves from the right of what a part needs to its left."""
    x, y = places[node.number]
    for needed in node.dependencies:
        from_x, from_y = places[needed]
        path = _curve(from_x + WIDTH, from_y + HEIGHT // 2, x, y + HEIGHT // 2)
        yield f'<path d="M{path}" fill="none" stroke="{_OTHERS}" stroke-width="1.5"/>'


def _curve(from_x: int, from_y: int, x: int, y: int) -> str:
    """A curve, or, past parts that are between, two and a line between their rows."""
    half = GAP_X // 2
    if x - from_x <= GAP_X:
        return f"{from_x} {from_y}C{from_x + half} {from_y} {x - half} {y} {x} {y}"
    lane = from_y + (HEIGHT + GAP_Y) // 2
    first = _curve(from_x, from_y, from_x + GAP_X, lane)
    last = _curve(x - GAP_X, lane, x, y)
    return f"{first}L{last}"


def _part(node: NodeReport, x: int, y: int) -> str:
    title = f"{node.number} {node.title}"
    shown = title if len(title) <= TITLE_CHARS else f"{title[: TITLE_CHARS - 1]}…"
    colour = _COLOURS.get(node.state, _OTHERS)
    # An inner svg cuts off what does not fit.
    return (
        f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}"><title>{_text(title)}</title>'
        f'<rect x="1" y="1" width="{WIDTH - 2}" height="{HEIGHT - 2}" rx="6" fill="{colour}" '
        f'fill-opacity="0.12" stroke="{colour}"/>'
        f'<text x="10" y="20">{_text(shown)}</text>'
        f'<text x="10" y="37" font-size="11" fill-opacity="0.7">{_figures(node)}</text>'
        "</svg>"
    )


def _text(text: str) -> str:
    """Escaped, without what XML cannot have."""
    return escape("".join(sign if sign.isprintable() else " " for sign in text))


def _figures(node: NodeReport) -> str:
    if node.started_s is None or node.finished_s is None:
        return node.state.value
    times = f"{node.started_s:.1f} to {node.finished_s:.1f} s"
    cut = ", cut" if node.cut is not None else ""
    return f"{times}, {node.tokens} tokens{cut}"

"""Graphs for notebooks and documents: valid, complete, and safe whatever the titles are."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from plato.display import graph_mermaid, graph_svg
from plato.display.levels import levels
from plato.runs import NodeReport, NodeState

NODES = (
    NodeReport(1, "Salt", (), NodeState.DONE, started_s=0.1, finished_s=1.2, tokens=96),
    NodeReport(2, "Depth", (), NodeState.RUNNING, started_s=0.1),
    NodeReport(3, "Both", (1, 2), NodeState.PLANNED),
)
SVG = "{http://www.w3.org/2000/svg}"
TITLES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=60)


def test_parts_that_need_nothing_of_each_other_are_on_a_level() -> None:
    assert [[node.number for node in level] for level in levels(NODES)] == [[1, 2], [3]]


def test_the_drawing_has_every_part_and_arrow() -> None:
    drawn = ElementTree.fromstring(graph_svg(NODES))
    parts = drawn.findall(f"{SVG}svg")
    texts = [[text.text for text in part.findall(f"{SVG}text")] for part in parts]
    assert texts == [
        ["1 Salt", "0.1 to 1.2 s, 96 tokens"],
        ["2 Depth", "running"],
        ["3 Both", "planned"],
    ]
    assert parts[0].get("x") == parts[1].get("x") != parts[2].get("x")
    assert len(drawn.findall(f"{SVG}path")) == 2


@given(TITLES)
def test_any_title_is_text(title: str) -> None:
    (node,) = [NodeReport(1, title, (), NodeState.DONE)]
    drawn = ElementTree.fromstring(graph_svg([node]))
    shown = drawn.find(f"{SVG}svg/{SVG}title")
    assert shown is not None
    assert shown.text == "1 " + "".join(sign if sign.isprintable() else " " for sign in title)
    (_, line, _) = graph_mermaid([node]).split("\n")
    label = re.fullmatch(r' {4}n1\["1 ([^"<>`]*)"\]', line)
    assert label is not None
    assert re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label[1]) == title


def test_nothing_is_an_empty_drawing() -> None:
    assert len(ElementTree.fromstring(graph_svg(()))) == 0
    assert graph_mermaid(()) == "flowchart LR\n"


def test_a_flowchart_has_every_part_and_arrow() -> None:
    assert graph_mermaid(NODES) == (
        'flowchart LR\n    n1["1 Salt"]\n    n2["2 Depth"]\n    n3["3 Both"]\n'
        "    n1 --> n3\n    n2 --> n3\n"
    )

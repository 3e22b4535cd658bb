"""The drawing of a plan graph."""

from __future__ import annotations

from typing import Any

import pytest
from rich.cells import cell_len

from plato.display import GraphDrawing
from plato.runs import NodeReport, NodeState
from tests.display.shown import shown

DONE, CANCELLED = NodeState.DONE, NodeState.CANCELLED
BOXES = frozenset("─┌├└│▼")


def part(number: int, title: str, *dependencies: int, **fields: Any) -> NodeReport:
    return NodeReport(number, title, dependencies, fields.pop("state", DONE), **fields)


PLAN = (
    part(1, "Sun"),
    part(2, "Wind"),
    part(3, "Both", 1, 2),
    part(4, "Tides"),
    part(5, "All", 3, 4),
)


def drawn(nodes: tuple[NodeReport, ...], width: int = 80, **fields: Any) -> str:
    encoding = fields.pop("encoding", "utf-8")
    return shown(GraphDrawing("plan", nodes, **fields), width, encoding)


def test_brackets_join_the_parts_that_need_nothing_of_each_other() -> None:
    assert drawn(PLAN).splitlines() == [
        "plan",
        "┌ 1 Sun",
        "├ 2 Wind",
        "└ 4 Tides",
        "▼",
        "─ 3 Both  needs 1, 2",
        "▼",
        "─ 5 All  needs 3, 4",
    ]


def test_without_a_utf_the_drawing_is_ascii() -> None:
    assert drawn(PLAN[:3], encoding="ascii").splitlines() == [
        "plan",
        "/ 1 Sun",
        "\\ 2 Wind",
        "v",
        "- 3 Both  needs 1, 2",
    ]
    assert "1 S?n [b]" in drawn((part(1, "Sün [b]"),), encoding="ascii")
    assert "1 Sün" in drawn((part(1, "Sün"),), encoding="latin-1")


def test_bars_show_what_ran_at_the_same_time_and_what_waited() -> None:
    nodes = (
        part(1, "Sun", planned_s=1.0, started_s=1.0, finished_s=6.0, tokens=96),
        part(2, "Wind", planned_s=2.0, started_s=2.0, finished_s=2.1),
        part(3, "Both", 1, 2, planned_s=3.0, started_s=6.0, finished_s=12.0),
        part(4, "Never", 3, planned_s=4.0, state=CANCELLED),
    )
    heading, *lines = drawn(nodes, width=96, until_s=12.0).splitlines()
    begin = heading.index("0 s")
    assert heading == f"plan  · waits  █ decodes{heading[24:begin]}0 s{'12.0 s':>21}"
    assert [line[begin:].rstrip() for line in lines if len(line) > begin] == [
        "  " + "█" * 10,
        "    █",
        "      ······" + "█" * 12,
        "        " + "·" * 16,
    ]
    assert lines[0].startswith("┌ ✓ 1 Sun  96 tokens ")
    assert "█" not in drawn(nodes, width=60, until_s=12.0)
    assert "#" in drawn(nodes, width=96, until_s=12.0, encoding="ascii")


def test_a_part_that_is_not_whole_is_marked() -> None:
    nodes = (
        part(1, "Sun", tokens=9, answer_tokens=9),
        part(2, "Wind", tokens=9, answer_tokens=9, cut="budget"),
        part(3, "Tides", tokens=9, answer_tokens=4, cut="max_tokens"),
        part(4, "All", tokens=9, cut="max_tokens"),
    )
    assert drawn(nodes, width=60, until_s=1.0).splitlines()[1:] == [
        "┌ ✓ 1 Sun  9 tokens",
        "├ ✓ 2 Wind  9 tokens  cut",
        "├ ✓ 3 Tides  9 tokens  cut",
        "└ ✓ 4 All  9 tokens  left out",
    ]


def test_long_titles_are_wrapped_inside_the_bracket() -> None:
    text = drawn((part(1, "long " * 40), part(2, "Short"), part(3, "x" * 200, 1)), width=50)
    lines = text.splitlines()
    assert lines[1].startswith("┌ 1 long long")
    assert lines[2].startswith("│ long")
    assert text.count("long") == 40
    assert text.count("x") == 200


@pytest.mark.parametrize("parts", [1, 32])
@pytest.mark.parametrize("title", ["Sun", "word " * 40, "x" * 200, "水力発電の費用と出力" * 20])
@pytest.mark.parametrize("width", [8, 64, 81])
def test_any_plan_fits_any_width(parts: int, title: str, width: int) -> None:
    nodes = tuple(
        part(number, title, *range(1, number, 2), planned_s=0.1, started_s=0.2, finished_s=number)
        for number in range(1, parts + 1)
    )
    latest = {parts: "last words " * 6}
    for until_s in (None, 33.0):
        text = drawn(nodes, width, until_s=until_s, latest=latest)
        assert max(map(cell_len, text.splitlines())) <= width
    # Wrapped or not, every title is there.
    text = "".join(c for c in drawn(nodes, width) if c not in BOXES and not c.isspace())
    assert text.count(title.replace(" ", "")) == parts

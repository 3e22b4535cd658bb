"""Plans that no grammar has forced are read as far as they are plans, whatever the pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plato.planning.readers import (
    Draft,
    EndOfPlan,
    JsonReader,
    LinesReader,
    PlanReader,
    json_plan,
)

DRAFTS = [Draft("Cost of sun", ()), Draft("Größe", ()), Draft('A "better" choice', (1, 2))]
LINES = (
    "Here is the plan:\n\n1 | Cost of sun | -\n2 | Größe | -\n"
    '3 | A "better" choice | 1,2\n[END]\nAnything'
)
JSON = json.dumps(
    {"parts": [{"title": draft.title, "needs": list(draft.needs or ())} for draft in DRAFTS]}
)


def read(reader: PlanReader, text: str, cuts: Sequence[int] = ()) -> tuple[list[Draft], str | None]:
    """The parts of a plan in pieces, and why it ended."""
    found: list[Draft] = []
    try:
        for start, stop in pairwise([0, *sorted(cuts), len(text)]):
            for draft in reader.feed(text[start:stop], ended=stop == len(text)):
                found.append(draft)  # noqa: PERF402 - `extend` would lose those before the end
    except EndOfPlan as end:
        return found, end.reason
    return found, "no end"


@given(st.lists(st.integers(1, len(LINES) - 1), max_size=9))
def test_lines_are_read_however_they_are_cut(cuts: list[int]) -> None:
    assert read(LinesReader(5), LINES, cuts) == (DRAFTS, None)


@given(st.lists(st.integers(1, len(JSON) - 1), max_size=9))
def test_json_is_read_however_it_is_cut(cuts: list[int]) -> None:
    assert read(JsonReader(), JSON, cuts) == (DRAFTS, None)


def test_a_last_line_needs_no_newline() -> None:
    assert read(LinesReader(5), "1 | A | -\n2 | B | 1") == (
        [Draft("A", ()), Draft("B", (1,))],
        "no end",
    )


@pytest.mark.parametrize("end", ["[ONE]", "[END]"])
def test_a_plan_without_parts_has_no_reason(end: str) -> None:
    assert read(LinesReader(5), f"{end}\n1 | A | -\n") == ([], None)


def test_a_line_that_does_not_belong_ends_the_plan() -> None:
    found = list(LinesReader(5).feed("1 | A | -\n", ended=False))
    assert found == [Draft("A", ())]
    for bad in ("So much for that.", "3 | C | -", "2 | C | 5"):
        reader = LinesReader(5)
        list(reader.feed("1 | A | -\n", ended=False))
        with pytest.raises(EndOfPlan, match="ended before"):
            list(reader.feed(f"{bad}\n", ended=False))


def test_no_more_parts_are_read_than_were_asked_for() -> None:
    reader = LinesReader(1)
    assert list(reader.feed("1 | A | -\n", ended=False)) == [Draft("A", ())]
    with pytest.raises(EndOfPlan) as end:
        list(reader.feed("2 | B | -\n", ended=False))
    assert end.value.reason is None


def test_needs_that_are_no_earlier_parts_are_dropped() -> None:
    text = '{"parts": [{"title": " A ", "needs": [1, 9]}, {"title": "B", "needs": [2, 1, 1, -3]}]}'
    assert read(JsonReader(), text) == ([Draft("A", ()), Draft("B", (1,))], None)


@pytest.mark.parametrize("part", ['"A"', "{}", '{"title": "A"}', '{"title": "A", "needs": ["x"]}'])
def test_json_that_is_no_part_ends_the_plan(part: str) -> None:
    assert read(JsonReader(), f'{{"parts": [{part}')[1] == "part 1 of the plan is not as asked for"


def test_a_schema_bounds_the_parts() -> None:
    assert json.loads(json_plan(4))["properties"]["parts"]["maxItems"] == 4

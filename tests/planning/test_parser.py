from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plato.errors import InvalidPlanError
from plato.planning.given import validate_plan
from plato.planning.parser import parse_plan
from plato.runs import Length, Node
from plato.settings import MAX_NODES, MAX_TITLE_CHARS

PLAN = "1 | Solar power: cost | -\n2 | Wind: Größe | - | short\n3 | 1,2 | Which to choose\n[END]"
NODES = (
    Node(1, "Solar power: cost"),
    Node(2, "Wind: Größe", length=Length.SHORT),
    Node(3, "Which to choose", (1, 2)),
)


def written(nodes: Iterable[Node]) -> str:
    """A plan in the plan language; `parse_plan` is the inverse."""
    lines = ""
    for node in nodes:
        needs = ",".join(map(str, node.dependencies)) or "-"
        length = f" | {node.length}" if node.length else ""
        lines += f"{node.number} | {node.title} | {needs}{length}\n"
    return lines + "[END]"


def message_of(text: str) -> str:
    with pytest.raises(InvalidPlanError) as refused:
        parse_plan(text, MAX_NODES)
    assert refused.value.param == "plato.plan"
    return refused.value.message


def test_one_is_a_plan_without_nodes() -> None:
    assert parse_plan("[ONE]", 8) == parse_plan("[ONE] \n\n", 8) == ()


ALPHABET = "12 3|-,\n[]ENDO\ra "


@given(
    st.one_of(
        st.text(),
        st.text(ALPHABET),
        st.builds(
            lambda text, place, junk: text[:place] + junk + text[place:],
            st.just(PLAN),
            st.integers(0, len(PLAN)),
            st.text(ALPHABET, max_size=4),
        ),
    )
)
def test_any_text_is_an_invalid_plan_or_nodes_that_can_be_written(text: str) -> None:
    try:
        nodes = parse_plan(text, 8)
    except InvalidPlanError:
        return
    if nodes:
        assert validate_plan(nodes, 8) == parse_plan(written(nodes), 8) == nodes


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("1 | - | A\n2 - B\n", "line 2: '2 - B' is not `number | title | dependencies`"),
        ("1 | - | A\n\n", "line 2: '' is not"),
        ("1 |  | A\n", "line 1: '1 |  | A' is not"),
        ("01 | - | A\n", "line 1"),
        ("1 | - | A\n2 | 3 | B\n", "line 2: part 2 depends on part 3, which does not come before"),
        ("1 | - | A\n2 | 2 | B\n", "line 2: part 2 depends on part 2"),
        ("1 | - | A\n1 | - | B\n", "line 2: part 1 appears twice"),
        ("2 | - | A\n", "line 1: part 2 is out of order"),
        ("1 | - | A\n2 | - | B\n3 | 2,1 | C\n", "line 3: list the dependencies in ascending"),
        ("1 | - | A\n2 | 1,1 | C\n", "line 2: part 2 names a dependency twice"),
        (
            "1 | - | A | B\n",
            "line 1: the last field is 'B'; a fourth field is the length",
        ),
        ("1 | A | - | Long\n", "short, medium, long"),
        ("1 | - | A|B\n", "line 1: the title contains `|`"),
        ("1 | A\n", "line 1: '1 | A' is not `number | title | dependencies`; write for example"),
        ("1 | A | - | long | B\n", "is not `number | title | dependencies`"),
        ("1 | A | B\n", "is not `number | title | dependencies`"),
        ("1 | A | -\n2 | B | 3\n", "line 2: part 2 depends on part 3, which does not come before"),
        ("1 | A | -\n2 | 1 | 2\n", "so the line was read as `number | title | dependencies`"),
        ("1 |  | -\n", "line 1: the title is empty"),
        ("1 | A  | -\n", "line 1: the title begins or ends with a space"),
        ("1 | - | A\tB\n", "line 1: the title contains"),
        ("1 | - | \n", "line 1: the title is empty"),
        ("1 | - | A \n", "line 1: the title begins or ends with a space"),
        ("1 | - | A [END]\n", "line 1: the title contains [END]"),
        ("1 | - | A\n[ONE]", "line 2: [ONE] is only valid"),
        ("[END]", "line 1: the plan has no parts"),
        ("1 | - | A\n[END]\nBye", "line 2: unexpected text after the end"),
        ("1 | - | A\n2 | - | B", "line 2: the plan is incomplete; end it with"),
        ("", "line 1: the plan is incomplete"),
        (f"1 | - | {'x' * (MAX_TITLE_CHARS + 1)}\n", "line 1: the title has 201 characters"),
    ],
)
def test_an_error_names_the_line_and_what_to_change(text: str, part: str) -> None:
    assert part in message_of(text)


@pytest.mark.parametrize(
    ("line", "node"),
    [
        ("2 | B | -", Node(2, "B")),
        ("2 | - | B", Node(2, "B")),
        ("2 | B | 1", Node(2, "B", (1,))),
        ("2 | 1 | B", Node(2, "B", (1,))),
        ("2 | B | 1 | long", Node(2, "B", (1,), length=Length.LONG)),
        ("2 | 1 | B | medium", Node(2, "B", (1,), length=Length.MEDIUM)),
        ("2 | short | 1", Node(2, "short", (1,))),
        ("2 | 1 | 1914", Node(2, "1914", (1,))),
        # Ambiguous: as the plan language has it.
        ("2 | 1 | 1", Node(2, "1", (1,))),
        ("2 | 7 | -", Node(2, "7")),
    ],
)
def test_every_line_may_have_either_order_and_a_length(line: str, node: Node) -> None:
    assert parse_plan(f"1 | A | -\n{line}\n[END]", 8) == (Node(1, "A"), node)


def test_white_space_may_follow_the_end() -> None:
    assert parse_plan(PLAN, 8) == parse_plan(f"{PLAN} \n\n", 8) == NODES


def test_the_longest_plan_is_parsed_and_no_longer_text() -> None:
    numbers = range(1, MAX_NODES + 1)
    title = "x" * MAX_TITLE_CHARS
    nodes = tuple(Node(n, title, tuple(range(1, n)), length=Length.MEDIUM) for n in numbers)
    assert parse_plan(written(nodes), MAX_NODES) == nodes
    assert "the plan has 1000005 characters; the maximum is" in message_of("[ONE]" + " " * 10**6)


def test_more_parts_than_allowed_are_an_error() -> None:
    with pytest.raises(InvalidPlanError, match="line 3: the plan has more than 2 parts"):
        parse_plan(PLAN, 2)

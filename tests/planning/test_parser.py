from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plato.errors import InvalidPlanError
from plato.planning.parser import PlanParser
from plato.runs import Length, Node
from plato.settings import MAX_TITLE_CHARS
from tests.planning.pieces import cut

PLAN = "1 | Solar power: cost | -\n2 | Wind: Größe | - | short\n3 | 1,2 | Which to choose\n[END]"
NODES = (
    Node(1, "Solar power: cost"),
    Node(2, "Wind: Größe", length=Length.SHORT),
    Node(3, "Which to choose", (1, 2)),
)


def read(pieces: Sequence[str]) -> tuple[tuple[Node, ...], str | None]:
    """All nodes, and the message of the error if there was one."""
    parser = PlanParser()
    returned: list[Node] = []
    try:
        for piece in pieces:
            returned += parser.feed(piece)
        parser.finish()
    except InvalidPlanError as error:
        return parser.nodes, error.message
    assert tuple(returned) == parser.nodes
    return parser.nodes, None


def message_of(text: str) -> str:
    message = read([text])[1]
    assert message is not None
    return message


def test_a_node_comes_with_the_end_of_its_line() -> None:
    parser = PlanParser()
    assert parser.feed("1 | - | Sol") == []
    assert parser.feed("ar\n2 | 1 | Wind\n") == [Node(1, "Solar"), Node(2, "Wind", (1,))]
    assert not parser.ended
    assert parser.feed("[END]") == []
    assert parser.ended
    assert not parser.one


def test_one_is_recognised_without_a_line_end() -> None:
    parser = PlanParser()
    parser.feed("[ON")
    assert not parser.ended
    parser.feed("E]")
    parser.finish()
    assert parser.one
    assert parser.nodes == ()


@given(st.sets(st.integers(1, len(PLAN) - 1)))
def test_any_cut_gives_the_same_nodes(places: set[int]) -> None:
    assert read(cut(PLAN, places)) == (NODES, None)


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
    ),
    st.sets(st.integers(1, 60)),
)
def test_any_text_parses_or_is_an_invalid_plan_however_it_is_cut(
    text: str, places: set[int]
) -> None:
    assert read(cut(text, places)) == read([text])


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
    assert read([f"1 | A | -\n{line}\n[END]"]) == ((Node(1, "A"), node), None)


def test_white_space_may_follow_the_end() -> None:
    assert read([PLAN, "\n", "\n"]) == (NODES, None)


def test_a_line_without_an_end_is_not_held_back_for_ever() -> None:
    message = read(["x" * 10] * 100)[1]
    assert "line 1: the line is too long" in (message or "")


def test_more_parts_than_allowed_are_an_error() -> None:
    parser = PlanParser(max_nodes=2)
    with pytest.raises(InvalidPlanError, match="line 3: the plan has more than 2 parts"):
        parser.feed(PLAN)


def test_nodes_before_an_error_are_kept_and_the_error_stays() -> None:
    parser = PlanParser()
    with pytest.raises(InvalidPlanError):
        parser.feed("1 | - | A\nnonsense\n")
    assert parser.nodes == (Node(1, "A"),)
    for again in (lambda: parser.feed("2 | - | B\n"), parser.finish):
        with pytest.raises(InvalidPlanError, match="line 2"):
            again()

from __future__ import annotations

import pytest

from plato.errors import InvalidPlanError
from plato.planning.given import read_plan, validate_plan, validate_script
from plato.runs import Length, Node

DIAMOND = (Node(1, "A"), Node(2, "B", (1,)), Node(3, "C", (1,)), Node(4, "D", (2, 3)))


def test_a_valid_plan_comes_back_as_it_is() -> None:
    assert validate_plan(DIAMOND, 8) == DIAMOND


def test_white_space_around_titles_goes_and_dependencies_are_sorted() -> None:
    nodes = (Node(1, " A\n"), Node(2, "B"), Node(3, "C", (2, 1), 7, Length.SHORT))
    assert validate_plan(nodes, 8) == (
        Node(1, "A"),
        Node(2, "B"),
        Node(3, "C", (1, 2), max_tokens=7, length=Length.SHORT),
    )


def test_one_part_is_left_to_the_scheduler() -> None:
    assert validate_plan([Node(1, "A")], 8) == (Node(1, "A"),)


def test_titles_up_to_200_characters_and_with_brackets_are_fine() -> None:
    assert validate_plan([Node(1, "[x] " + "y" * 196)], 8)


@pytest.mark.parametrize(
    ("nodes", "part"),
    [
        ([], "has no parts"),
        ([Node(1, "A"), Node(2, "B", (7,))], "part 2 depends on part 7"),
        ([Node(1, "A"), Node(2, "B", (0,))], "part 0, which does not exist"),
        ([Node(1, "A", (2,)), Node(2, "B")], "part 1 depends on part 2, which does not come"),
        ([Node(1, "A", (1,))], "part 1 depends on part 1"),
        ([Node(1, "A"), Node(2, "B", (1, 1))], "names a dependency twice"),
        ([Node(1, "A"), Node(1, "B")], "part 1 appears twice"),
        ([Node(0, "A")], "part 0 is out of order"),
        ([Node(1, "A"), Node(3, "B")], "part 3 is out of order"),
        ([Node(n, "A") for n in range(1, 10)], "more than 8 parts"),
        ([Node(1, " ")], "part 1: the title is empty"),
        ([Node(1, "A\nB")], "part 1: the title contains `|`, a newline"),
        ([Node(1, "A|B")], "part 1: the title contains `|`"),
        ([Node(1, "x" * 201)], "part 1: the title has 201 characters; the maximum is 200"),
        ([Node(1, "A", max_tokens=0)], "part 1: max_tokens is 0"),
    ],
)
def test_an_invalid_plan_is_refused_with_what_to_change(nodes: list[Node], part: str) -> None:
    with pytest.raises(InvalidPlanError) as refused:
        validate_plan(nodes, 8)
    assert part in refused.value.message
    assert refused.value.param == "plato.plan"
    assert refused.value.status == 400


def test_a_plan_is_read_from_the_plan_language() -> None:
    text = "1 | A | -\n2 | B | 1\n3 | C | 1\n4 | D | 2,3\n[END]\n"
    assert read_plan(text, 8) == DIAMOND
    dependencies_first = "1 | - | A\n2 | 1 | B\n3 | 1 | C\n4 | 2,3 | D\n[END]\n"
    assert read_plan(dependencies_first, 8) == DIAMOND


def test_a_text_that_says_not_to_split_is_refused_with_the_mode_to_use() -> None:
    with pytest.raises(InvalidPlanError, match="mode `sequential`"):
        read_plan("[ONE]\n", 8)


def test_a_text_with_an_error_is_refused_with_its_line() -> None:
    with pytest.raises(InvalidPlanError, match="line 2"):
        read_plan("1 | - | A\n2 | 3 | B\n[END]\n", 8)


def test_a_plan_to_decode_is_one_that_the_planner_could_write() -> None:
    validate_script(DIAMOND)
    validate_script(DIAMOND[:2])
    with pytest.raises(InvalidPlanError, match="at least 2"):
        validate_script(DIAMOND[:1])

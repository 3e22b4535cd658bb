from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest

from plato.planning.grammar import outline_grammar, outline_title
from plato.planning.parser import title_problem
from plato.planning.rules import START, Rule, regex
from plato.planning.titles import WORD_CHARS, is_debris, refusal, title_of_words
from plato.prompting import Tokenizer
from plato.settings import MAX_TITLE_CHARS
from tests.planning.test_rules import Accepts, python_accepts
from tests.planning.walks import random_walk


def accepts(title: Rule) -> Accepts:
    return python_accepts(regex({START: title}))


decodable = accepts(title_of_words(9))


@pytest.mark.parametrize(
    "title",
    [
        "A B",
        "3D printing",
        "Top 10",
        "5 tips for 2 people",
        "World War 2",
        "The 1990s",
        "C++ and C#",
        "R&D costs",
        "What you don't need",
        "The owner\u2019s view",
        "AI-powered tools and/or people",
        "Größe und Gewicht",
        "東京の歴史",
        "История города",
        "תולדות העיר",
        "हिन्दी की व्याकरण",
        "می‌خواهم بدانم",
        "one two three four five six seven eight nine",
        "internationalisation internationalisation",
        "Step 2",
        "東京",
        "ประวัติศาสตร์",
        "ค่าใช้จ่ายของพลังงานแสงอาทิตย์",
        "नानी ने बताया",
    ],
)
def test_titles_of_all_scripts_can_be_decoded(title: str) -> None:
    assert decodable(title)
    assert not is_debris(title)
    assert title_problem(title, MAX_TITLE_CHARS) is None


@pytest.mark.parametrize(
    "title",
    [
        "",
        "A",
        "internationalisation",
        " A B",
        "A B ",
        "A  B",
        "- A B",
        "…",
        "12",
        "(A B)",
        "Tools (hammer)",
        "Costs in €",
        "“A B”",
        "'A B'",
        "*A B*",
        "😀",
        "Solar:",
        "Solar power: cost",
        "Solar power, cost",
        "Solar power,",
        "What is C++?",
        "One. Two",
        "1. Salt",
        "Buy seeds 2. Plant",
        "a) 1) Salt",
        "Parts 1, 2, 3",
        "Output -",
        "Output \u2013",
        "12345 houses",
        "50% more",
        "1,2,3,4",
        "3-",
        "well--known",
        "mechanism,1,2",
        "such as:https",
        "A [B]",
        "A | B",
        "A\tB",
        "A\nB",
        "A\x85B",
        "A\u202eB",
        "A\u3000B",
        "one two three four five six seven eight nine ten",
    ],
)
def test_what_is_no_title_cannot_be_decoded(title: str) -> None:
    assert not decodable(title)


def test_titles_begin_with_a_letter_of_any_script_or_another_script_s_digit() -> None:
    # All but the block of letterlike symbols.
    chars = (chr(code) for code in range(0x80, 0x30000, 3) if not 0x2000 <= code < 0x2190)
    letters = [char for char in chars if unicodedata.category(char) in ("Lu", "Ll", "Lo", "Nd")]
    assert all(decodable(f"{char} a") for char in letters)
    latin = [char for char in map(chr, range(0x100)) if char not in "0123456789"]
    assert [char for char in latin if decodable(f"{char} a")] == [
        char for char in latin if char.isalpha()
    ]
    assert not any(
        decodable(f"{char} a")
        for char in "“…•€→★☐、。「」\u2014\u2212\uff08\uff1a\u200b\ufeff\ue000😀"
    )


def test_a_title_has_up_to_so_many_words() -> None:
    matches = accepts(title_of_words(3))
    assert matches("one two three")
    assert matches("one-two/three")
    assert not matches("one two three four")
    assert not matches("one")
    assert matches("1 one")
    # Numbers do not count.
    assert matches("2 one 3 two 4 three 5")


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_ends_a_title_after_a_word(
    tokenizer: Tokenizer, matching: Any, seed: int
) -> None:
    grammar = outline_grammar(3, title_of_words(3, 12)).lark
    for line in random_walk(tokenizer, matching, grammar, seed).text.splitlines():
        words = re.split("[ /-]", outline_title(line) or "")
        numbers = [word for word in words if word[0] in "0123456789"]
        assert len(words) - len(numbers) <= 3
        assert all(1 <= len(word) <= 12 for word in words)


@pytest.mark.parametrize(
    "title",
    [
        "1,2,3,4,5,6,7,8,...",
        "3-",
        "12",
        "3.5 %",
        "water Water water",
        "water-water/Water",
        "the best of the best of and and and",
        "Cost and output or",
        "Cost and output and",
        "Choose a",
        "Choose an",
        "Choose the",
    ],
)
def test_debris_is_recognised(title: str) -> None:
    assert is_debris(title)


@pytest.mark.parametrize(
    "title",
    [
        "A budget of 1,000,000 dollars",
        "Windows 11 10 and 8",
        "Day by day by bicycle",
        "New York New York",
        "Water water and water",
        "What to look for",
        "Vitamin A",
        "東京",
    ],
)
def test_real_titles_are_no_debris(title: str) -> None:
    assert not is_debris(title)


class TestRefusal:
    EARLIER = ("Cost of solar power", "Which one to choose")

    def test_takes_what_is_new(self) -> None:
        assert refusal("Effect on the landscape", self.EARLIER, 12) is None
        assert refusal("Cost of wind power", self.EARLIER, 12) is None
        assert refusal("Soil", (), 12) is None

    @pytest.mark.parametrize("title", ["1,2,3,4", "Choose the", "12"])
    def test_is_of_debris(self, title: str) -> None:
        assert refusal(title, (), 12) == "no title"

    @pytest.mark.parametrize(
        "title", ["Cost of solar power", "COST OF SOLAR POWER", "Solar-power cost of", "東京"]
    )
    def test_is_of_the_words_of_an_earlier_title_in_any_order(self, title: str) -> None:
        assert refusal(title, (*self.EARLIER, "東京", "Soil"), 12) == "repeated"

    def test_is_of_the_fourth_title_in_a_row_that_differs_in_one_word(self) -> None:
        loop = ("Use of salt", "Use of sugar", "Use of milk")
        assert refusal("Use of flour", loop, 12) == "a loop"
        assert refusal("Use of flour", loop[1:], 12) is None
        assert refusal("Use of flour", (*loop, "Baking"), 12) is None
        assert refusal("Use of the flour", loop, 12) is None

    def test_is_not_of_single_words_that_differ(self) -> None:
        assert refusal("Sun", ("Soil", "Water"), 12) is None

    def test_is_of_words_in_every_script(self) -> None:
        assert refusal("दिन रात", ("दान रीत",), 12) is None
        assert refusal("ค่าใช้จ่ายของพลังงานแสงอาทิตย์", (), 12) is None
        assert refusal("東" * 48, (), 12) == "too long"

    def test_too_long_is_what_was_probably_cut_by_the_grammar(self) -> None:
        assert refusal("Cost of solar-power plants", (), 4) == "too long"
        assert refusal("Cost of 30 solar-power plants", (), 5) is None
        assert refusal(f"The {'a' * WORD_CHARS}", (), 5) == "too long"
        assert refusal(f"The {'a' * (WORD_CHARS - 1)}", (), 5) is None

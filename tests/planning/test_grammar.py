from __future__ import annotations

from typing import Any

import llguidance
import pytest

from plato.planning.grammar import (
    MIN_PARTS,
    outline_grammar,
    outline_line,
    outline_title,
    outline_token_budget,
)
from plato.planning.titles import title_of_words
from plato.prompting import Tokenizer
from tests.planning.walks import follow, random_walk

OUTLINE = "1. **Solar power**:\n2. **Wind power**:\n3. **Which to choose**:\n4. **Next steps**:\n"


def grammar(max_nodes: int = 8, *, words: int = 12) -> str:
    return outline_grammar(max_nodes, title_of_words(words)).lark


def matches(tokenizer: Tokenizer, matching: Any, text: str) -> bool:
    matcher = llguidance.LLMatcher(matching, grammar(), log_level=0)
    return matcher.consume_tokens(list(tokenizer.text(text))) and matcher.is_accepting()


@pytest.mark.parametrize("max_nodes", [2, 3, 8, 32])
def test_grammars_of_every_size_are_valid(matching: Any, max_nodes: int) -> None:
    assert not llguidance.LLMatcher.validate_grammar(grammar(max_nodes), matching)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_grammar_allows_is_lines_within_its_bounds_one_after_the_other(
    tokenizer: Tokenizer, matching: Any, seed: int
) -> None:
    max_nodes, words = 2 + seed % 11, 2 + seed % 19
    walk = random_walk(tokenizer, matching, grammar(max_nodes, words=words), seed)

    *lines, rest = walk.text.split("\n")
    assert not rest
    assert MIN_PARTS <= len(lines) <= max_nodes
    for number, line in enumerate(lines, start=1):
        title = outline_title(line)
        assert title
        assert f"{line}\n" == outline_line(number, title)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1. **A a**:\n",
        "1. **A a**:\n3. **B b**:\n2. **C c**:\n",
        "2. **A a**:\n3. **B b**:\n",
        "1. **A a **:\n2. **B b**:\n",
        "1. ** A a**:\n2. **B b**:\n",
        "1. ****:\n2. **B b**:\n",
        "1. **A a**\n2. **B b**\n",
        "1. **A a:**\n2. **B b:**\n",
        "1. A a\n2. B b\n",
        "1. **A**:\n2. **B**:\n",
        "1. **A a**: text\n2. **B b**:\n",
        "1. **A a**:\n\n2. **B b**:\n",
        "1. **A a**:\n2. **B b**:",
        "1 | A a\n2 | B b\n[END]",
        "Here is a list.\n1. **A a**:\n2. **B b**:\n",
    ],
)
def test_text_outside_the_language_does_not_match(
    tokenizer: Tokenizer, matching: Any, text: str
) -> None:
    assert not matches(tokenizer, matching, text)
    assert matches(tokenizer, matching, OUTLINE)


def test_the_end_is_forced_after_the_most_lines_and_forbidden_before_the_fewest(
    tokenizer: Tokenizer, matching: Any
) -> None:
    ends = []
    matcher = llguidance.LLMatcher(matching, grammar(3))
    for line in ("1. **A a**:\n", "2. **B b**:\n", "3. **C c**:\n"):
        matcher.consume_tokens(list(tokenizer.text(line)))
        ends.append((matcher.is_accepting(), matcher.is_stopped()))
    assert ends == [(False, False), (True, False), (True, True)]


def test_structure_is_forced_where_it_has_no_alternative(
    tokenizer: Tokenizer, matching: Any
) -> None:
    walk = follow(tokenizer, matching, grammar(), OUTLINE)
    # The end of a title and whether a third line follows are choices.
    assert "".join(walk.forced) == "1. **\n2. **\n. **\n. **\n"


def test_the_most_lines_are_bounds_of_the_structure_that_is_forced(
    tokenizer: Tokenizer, matching: Any
) -> None:
    walk = follow(tokenizer, matching, grammar(2), "1. **A a**:\n2. **B b**:\n")
    assert "".join(walk.forced) == "1. **\n2. **\n"


@pytest.mark.parametrize("number", [1, 9, 10, 999])
@pytest.mark.parametrize(
    "title", ["A", "Solar power: cost", "**Bold**", "**:", "1. **A**:", "東京"]
)
def test_a_line_is_read_as_it_was_written(number: int, title: str) -> None:
    assert outline_title(outline_line(number, title).removesuffix("\n")) == title


@pytest.mark.parametrize(
    "line",
    [
        "",
        "1. ****:",
        "1. **A**",
        "1. A:",
        "**A**:",
        "1. **A**: text",
        " 1. **A**:",
        "1.**A**:",
        "0. **A**:",
        "01. **A**:",
        "1000. **A**:",
        "1. **A**:\n",
        "1 | A | -",
    ],
)
def test_what_is_no_line_of_an_outline_has_no_title(line: str) -> None:
    assert outline_title(line) is None


def test_titles_of_the_greatest_length_fit_the_token_budget(tokenizer: Tokenizer) -> None:
    title = "What the long term consequences for the inhabitants of smaller towns would be"
    words = len(title.split())
    for max_nodes in (2, 8, 32):
        lines = (outline_line(number, title) for number in range(1, max_nodes + 1))
        # One more for the end of the turn.
        tokens = len(tokenizer.text("".join(lines))) + 1
        assert tokens <= outline_token_budget(max_nodes, words)

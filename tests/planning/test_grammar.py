from __future__ import annotations

from typing import Any

import llguidance
import pytest

from plato.planning.grammar import (
    DEPENDENCIES_FIRST,
    MIN_NODES,
    TITLES,
    WITH_LENGTH,
    plan_grammar,
    plan_rules,
    plan_token_budget,
)
from plato.planning.parser import PlanParser
from plato.planning.rules import lark
from plato.planning.titles import title_of_words
from plato.prompting import Tokenizer
from tests.planning.walks import follow, random_walk

PLAN = "1 | Solar power: cost\n2 | Wind power\n3 | Which to choose\n4 | Next steps\n[END]"


def grammar(max_nodes: int = 8, *, words: int = 12) -> str:
    return plan_grammar(max_nodes, title_of_words(words))


def with_dependencies(max_nodes: int) -> str:
    return lark(plan_rules(max_nodes, fields=DEPENDENCIES_FIRST, title=title_of_words(12)))


def matches(tokenizer: Tokenizer, matching: Any, rules: str, text: str) -> bool:
    matcher = llguidance.LLMatcher(matching, rules, log_level=0)
    return matcher.consume_tokens(list(tokenizer.text(text))) and matcher.is_accepting()


@pytest.mark.parametrize("max_nodes", [2, 3, 8, 32])
def test_grammars_of_every_size_are_valid(matching: Any, max_nodes: int) -> None:
    assert not llguidance.LLMatcher.validate_grammar(grammar(max_nodes), matching)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_grammar_allows_parses_within_its_bounds(
    tokenizer: Tokenizer, matching: Any, seed: int
) -> None:
    max_nodes, words = 2 + seed % 11, 1 + seed % 20
    walk = random_walk(tokenizer, matching, grammar(max_nodes, words=words), seed)

    parser = PlanParser(max_nodes=max_nodes, fields=TITLES)
    nodes = parser.feed(walk.text)
    parser.finish()

    assert not parser.one
    assert min(MIN_NODES, max_nodes) <= len(nodes) <= max_nodes


@pytest.mark.parametrize("seed", range(10))
def test_dependencies_that_the_grammar_allows_parse(
    tokenizer: Tokenizer, matching: Any, seed: int
) -> None:
    max_nodes = 2 + seed % 11
    walk = random_walk(tokenizer, matching, with_dependencies(max_nodes), seed)
    parser = PlanParser(max_nodes=max_nodes, fields=DEPENDENCIES_FIRST)
    parser.feed(walk.text)
    parser.finish()


@pytest.mark.parametrize(
    "text",
    [
        "1 | A\n[END]",
        "1 | A\n3 | B\n2 | C\n[END]",
        "1 | A \n2 | B\n3 | C\n[END]",
        "1 |  A\n2 | B\n3 | C\n[END]",
        "1 | \n2 | B\n3 | C\n[END]",
        "1 | A [END]\n2 | B\n3 | C\n[END]",
        "1 | A | -\n2 | B | -\n3 | C | -\n[END]",
        "1 | A\n2 | B\n3 | C\n",
        "[ONE]",
    ],
)
def test_text_outside_the_language_does_not_match(
    tokenizer: Tokenizer, matching: Any, text: str
) -> None:
    assert not matches(tokenizer, matching, grammar(), text)
    assert matches(tokenizer, matching, grammar(), PLAN)


def test_dependencies_may_be_any_smaller_numbers(tokenizer: Tokenizer, matching: Any) -> None:
    lines = "".join(f"{number} | - | Part\n" for number in range(1, 12))
    rules = with_dependencies(12)
    for needs in ("-", "1", "10", "11", "1,11", "2,3,10", "1,2,3,4,5,6,7,8,9,10,11"):
        text = f"{lines}12 | {needs} | Part\n[END]"
        assert matches(tokenizer, matching, rules, text), needs
    for needs in ("12", "2,1", "1,1", "1,12", "0", ""):
        text = f"{lines}12 | {needs} | Part\n[END]"
        assert not matches(tokenizer, matching, rules, text), needs


def test_end_is_forced_after_the_most_lines(tokenizer: Tokenizer, matching: Any) -> None:
    walk = follow(tokenizer, matching, grammar(3), "1 | A\n2 | B\n3 | C\n[END]")
    assert "".join(walk.forced).endswith("[END]")


def test_structure_is_forced_where_it_has_no_alternative(
    tokenizer: Tokenizer, matching: Any
) -> None:
    walk = follow(tokenizer, matching, grammar(), PLAN)
    # [1 |] ... [2 |] ... [3 |] ... 4[ |] ... [[END]]
    assert "".join(walk.forced) == "1 |2 |3 | |END]"


def test_the_structure_of_other_fields_is_forced_as_well(
    tokenizer: Tokenizer, matching: Any
) -> None:
    rules = plan_rules(3, fields=WITH_LENGTH, title=title_of_words(12))
    text = "1 | Sun | - | short\n2 | Wind | 1 | long\n3 | Choice | 1,2 | medium\n[END]"
    walk = follow(tokenizer, matching, lark(rules), text)
    assert "".join(walk.forced) == "1 | - |\n2 | |\n3 |2 |\n[END]"


def test_titles_of_the_greatest_length_fit_the_token_budget(tokenizer: Tokenizer) -> None:
    title = "What the long term consequences for the inhabitants of smaller towns would be"
    words = len(title.split())
    for max_nodes in (2, 8, 32):
        lines = (f"{number} | {title}\n" for number in range(1, max_nodes + 1))
        tokens = tokenizer.text("".join(lines) + "[END]")
        assert len(tokens) <= plan_token_budget(max_nodes, words)

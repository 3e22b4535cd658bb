from __future__ import annotations

from typing import Any

import llguidance
import pytest

from plato.planning.grammar import (
    DEPENDENCIES_FIRST,
    MIN_NODES,
    WITH_LENGTH,
    plan_grammar,
    plan_rules,
    plan_token_budget,
)
from plato.planning.parser import PlanParser
from plato.planning.rules import lark
from plato.planning.titles import title_of_words
from plato.prompting import Tokenizer
from tests.planning.walks import allowed, follow, random_walk

PLAN = (
    "1 | - | Solar power: cost\n"
    "2 | - | Wind power\n"
    "3 | 1,2 | Which to choose\n"
    "4 | 1 | Next steps\n"
    "[END]"
)


def grammar(max_nodes: int = 8, *, title: int = 60, one: bool = True) -> str:
    return plan_grammar(max_nodes, max_title_chars=title, allow_one=one)


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
    max_nodes, title = 2 + seed % 11, 8 + seed % 20
    walk = random_walk(tokenizer, matching, grammar(max_nodes, title=title), seed)

    parser = PlanParser(max_nodes=max_nodes, max_title_chars=title, fields=DEPENDENCIES_FIRST)
    nodes = parser.feed(walk.text)
    parser.finish()

    assert parser.one or min(MIN_NODES, max_nodes) <= len(nodes) <= max_nodes
    assert all(len(node.title) <= title for node in nodes)


@pytest.mark.parametrize(
    "text",
    [
        "1 | - | A\n[END]",
        "1 | - | A\n2 | 2 | B\n3 | - | C\n[END]",
        "1 | - | A\n2 | - | B\n3 | 2,1 | C\n[END]",
        "1 | - | A\n2 | - | B\n3 | 1,1 | C\n[END]",
        "1 | - | A\n3 | - | B\n2 | - | C\n[END]",
        "1 | - | A \n2 | - | B\n3 | - | C\n[END]",
        "1 | - |  A\n2 | - | B\n3 | - | C\n[END]",
        "1 | - | \n2 | - | B\n3 | - | C\n[END]",
        "1 | - | A [END]\n2 | - | B\n3 | - | C\n[END]",
        "1 | - | A\n2 | - | B\n3 | - | C\n",
        "1 | - | A\n[ONE]",
    ],
)
def test_text_outside_the_language_does_not_match(
    tokenizer: Tokenizer, matching: Any, text: str
) -> None:
    assert not matches(tokenizer, matching, grammar(), text)
    assert matches(tokenizer, matching, grammar(), PLAN)


def test_dependencies_may_be_any_smaller_numbers(tokenizer: Tokenizer, matching: Any) -> None:
    lines = "".join(f"{number} | - | Part\n" for number in range(1, 12))
    for needs in ("-", "1", "10", "11", "1,11", "2,3,10", "1,2,3,4,5,6,7,8,9,10,11"):
        text = f"{lines}12 | {needs} | Part\n[END]"
        assert matches(tokenizer, matching, grammar(12), text), needs


def test_one_is_allowed_only_where_asked_for(tokenizer: Tokenizer, matching: Any) -> None:
    assert matches(tokenizer, matching, grammar(one=True), "[ONE]")
    assert not matches(tokenizer, matching, grammar(one=False), "[ONE]")


def test_the_first_token_decides_between_one_and_a_plan(
    tokenizer: Tokenizer, matching: Any
) -> None:
    matcher = llguidance.LLMatcher(matching, grammar(one=True))
    assert {tokenizer.decode((token,)) for token in allowed(matcher)} == {"[", "1"}


def test_end_is_forced_after_the_most_lines(tokenizer: Tokenizer, matching: Any) -> None:
    walk = follow(tokenizer, matching, grammar(3), "1 | - | A\n2 | - | B\n3 | - | C\n[END]")
    assert "".join(walk.forced).endswith("[END]")


def test_structure_is_forced_where_it_has_no_alternative(
    tokenizer: Tokenizer, matching: Any
) -> None:
    decided = follow(tokenizer, matching, grammar(one=True), PLAN)
    compulsory = follow(tokenizer, matching, grammar(one=False), PLAN)

    # 1[ | - |] ... [2 |] - [|] ... [3 |] 1,[2 |] ... 4[ |] 1 | ... [[END]]
    assert "".join(compulsory.forced) == "1 | - |2 | |3 |2 | |END]"
    assert "".join(decided.forced) == " | - |2 | |3 |2 | |END]"


def test_the_structure_of_other_fields_is_forced_as_well(
    tokenizer: Tokenizer, matching: Any
) -> None:
    rules = plan_rules(3, fields=WITH_LENGTH, title=title_of_words(), allow_one=False)
    text = "1 | Sun | - | short\n2 | Wind | 1 | long\n3 | Choice | 1,2 | medium\n[END]"
    walk = follow(tokenizer, matching, lark(rules), text)
    assert "".join(walk.forced) == "1 | - |\n2 | |\n3 |2 |\n[END]"


def test_titles_of_usual_length_fit_the_token_budget(tokenizer: Tokenizer) -> None:
    title = "What the long-term consequences for smaller towns would be."
    for max_nodes in (2, 8, 32):
        lines = (f"{number} | 1,2,3 | {title}\n" for number in range(1, max_nodes + 1))
        tokens = tokenizer.text("".join(lines) + "[END]")
        assert len(tokens) <= plan_token_budget(max_nodes, 60)

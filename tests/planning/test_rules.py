"""Every notation describes the same language, by the decoders that read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from typing import Any

import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance.gbnf_to_lark import gbnf_to_lark

from plato.planning.given import write_plan
from plato.planning.grammar import (
    DEPENDENCIES_FIRST,
    TITLE_FIRST,
    TITLES,
    WITH_LENGTH,
    Fields,
    plan_rules,
)
from plato.planning.parser import PlanParser
from plato.planning.rules import (
    START,
    Characters,
    Literal,
    Reference,
    Repeat,
    Rule,
    Rules,
    choice,
    gbnf,
    lark,
    regex,
    sequence,
)
from plato.planning.titles import title_of_words
from plato.runs import Length, Node

try:
    import xgrammar
except ImportError:
    xgrammar = None

BYTES = llguidance.LLTokenizer("byte")
Accepts = Callable[[str], bool]


def llguidance_accepts(grammar: str) -> Accepts:
    matcher = llguidance.LLMatcher(BYTES, grammar, log_level=0)
    assert not matcher.get_error(), matcher.get_error()

    def accepts(text: str) -> bool:
        copy, tokens = matcher.deep_copy(), list(text.encode())
        return copy.try_consume_tokens(tokens) == len(tokens) and bool(copy.is_accepting())

    return accepts


def gbnf_accepts(grammar: str) -> Accepts:
    """By llguidance's converter, which drops leading zeros of escapes."""
    converted = gbnf_to_lark(grammar)
    for letter, digits in (("u", 4), ("U", 8)):
        padded = rf"\\{letter}{{:0>{digits}}}"
        converted = re.sub(
            rf"(?<!\\)((?:\\\\)*)\\{letter}([0-9a-f]*)",
            lambda found, form=padded[1:]: found[1] + form.format(found[2]),
            converted,
        )
    return llguidance_accepts(converted)


def xgrammar_accepts(grammar: str) -> Accepts:
    vocabulary: list[bytes] = [bytes([byte]) for byte in range(256)] + [b"</s>"]
    info: Any = xgrammar.TokenizerInfo(vocabulary, stop_token_ids=[256])
    compiled = xgrammar.GrammarCompiler(info).compile_grammar(grammar)

    def accepts(text: str) -> bool:
        matcher = xgrammar.GrammarMatcher(compiled)
        return bool(matcher.accept_string(text)) and bool(matcher.is_completed())

    return accepts


def python_accepts(pattern: str) -> Accepts:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text) is not None


def decoders(rules: Rules) -> dict[str, Accepts]:
    found = {
        "Lark": llguidance_accepts(lark(rules)),
        "GBNF": gbnf_accepts(gbnf(rules)),
        "regex": llguidance_accepts(llguidance.LLMatcher.grammar_from_regex(regex(rules))),
        "Python": python_accepts(regex(rules)),
    }
    if xgrammar is not None:
        found["xgrammar"] = xgrammar_accepts(gbnf(rules))
    return found


def verdicts(accepted_by: dict[str, Accepts], text: str) -> set[bool]:
    return {accepts(text) for accepts in accepted_by.values()}


ALPHABET = "ab1-^&~ \n\"'\\/|[](){}.*+?$#é\u2028東😀"
characters = st.lists(st.sampled_from(ALPHABET), min_size=1, max_size=3).map(
    lambda chars: tuple((ord(char), ord(char) + 2) for char in chars)
)
leaves = st.one_of(
    st.text(ALPHABET, min_size=1, max_size=2).map(Literal),
    st.builds(Characters, characters, st.booleans()),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda items: sequence(*items)),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: choice(*options)),
        st.builds(
            # Not a repetition of a repetition, of which the converter loses the brackets.
            lambda first, item, low, more: Repeat(sequence(first, item), low, low + more),
            leaves,
            inner,
            st.integers(0, 2),
            st.integers(1, 2),
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(trees, st.lists(st.text(ALPHABET, max_size=5), max_size=6), st.data())
def test_all_notations_of_any_rules_accept_the_same_texts(
    tree: Rule, texts: list[str], data: st.DataObject
) -> None:
    rules = {START: Reference("TEXT"), "TEXT": tree}
    accepted_by = decoders(rules)
    match = data.draw(st.from_regex(re.compile(regex(rules)), fullmatch=True))
    assert verdicts(accepted_by, match) == {True}
    for text in texts:
        assert len(verdicts(accepted_by, text)) == 1, text


def test_rules_that_are_no_terminals_may_refer_to_each_other_and_contain_anything() -> None:
    odd = '"\\/\n\t|[é東😀\u2028'
    rules = {
        START: sequence("<", Reference("item"), Repeat(Reference("item"), 0, 2), ">"),
        "item": choice(odd, Characters(((0x30, 0x39),)), sequence("(", choice("x", "y"), ")")),
    }
    accepted_by = decoders(rules)
    for text in (f"<{odd}>", f"<1{odd}9>", "<(x)(y)2>"):
        assert verdicts(accepted_by, text) == {True}
    for text in ("<>", "<1111>", "<x>", f"<{odd[1:]}>"):
        assert verdicts(accepted_by, text) == {False}


LINES: dict[Fields, dict[str, Accepts]] = {}
"""What decodes plans of up to five lines; built once."""


def plan_decoders(fields: Fields) -> dict[str, Accepts]:
    if fields not in LINES:
        title = title_of_words(3, 6)
        LINES[fields] = decoders(plan_rules(5, fields=fields, title=title))
    return LINES[fields]


words = st.text("abé東1-,:", min_size=1, max_size=7)
titles = st.lists(words, min_size=1, max_size=4).map(" ".join)


@st.composite
def plans(draw: st.DrawFn) -> list[Node]:
    return [
        Node(
            number,
            draw(titles),
            tuple(sorted(draw(st.sets(st.integers(1, number), max_size=number)) - {number})),
            length=draw(st.sampled_from(Length)),
        )
        for number in range(1, draw(st.integers(1, 6)) + 1)
    ]


@settings(max_examples=100, deadline=None)
@given(
    plans(),
    st.sampled_from([TITLES, TITLE_FIRST, WITH_LENGTH, DEPENDENCIES_FIRST]),
    st.integers(0, 60),
    st.sampled_from(["", "", " ", "|", "-", "1", ",", "\n", "a", "[END]", "x y z w"]),
)
def test_all_notations_of_the_plan_language_accept_the_same_texts_and_the_parser_reads_them(
    nodes: list[Node], fields: Fields, place: int, inserted: str
) -> None:
    text = write_plan(nodes, fields)
    text = text[:place] + inserted + text[place:]
    found = verdicts(plan_decoders(fields), text)
    assert len(found) == 1
    if found == {True}:
        parser = PlanParser(fields=fields)
        read = parser.feed(text)
        parser.finish()
        assert write_plan(read, fields) == text


@pytest.mark.parametrize("fields", [TITLES, TITLE_FIRST, WITH_LENGTH, DEPENDENCIES_FIRST])
def test_a_plan_of_every_form_is_accepted_and_read_as_it_was(fields: Fields) -> None:
    numbers = count(1)
    nodes = (
        Node(next(numbers), "Solar", length=Length.LONG),
        Node(next(numbers), "Wind é 3", (1,), length=Length.SHORT),
        Node(next(numbers), "東 a b", (1, 2), length=Length.MEDIUM),
    )
    text = write_plan(nodes, fields)
    assert verdicts(plan_decoders(fields), text) == {True}
    assert verdicts(plan_decoders(fields), "[ONE]") == {False}
    assert verdicts(plan_decoders(fields), text.removesuffix("[END]")) == {False}


@pytest.mark.parametrize(("lines", "largest"), [(8, 20_000), (32, 100_000)])
def test_a_regular_expression_grows_slowly_with_the_number_of_lines(
    lines: int, largest: int
) -> None:
    rules = plan_rules(lines, fields=TITLE_FIRST, title=title_of_words(12))
    assert len(regex(rules)) < largest

"""Every notation describes the same language, by the decoders that read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import llguidance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plato.planning.grammar import (
    MIN_PARTS,
    outline_grammar,
    outline_line,
    outline_rules,
    outline_title,
)
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
from tests.gbnf import to_lark

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
    return llguidance_accepts(to_lark(grammar))


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


def test_the_grammar_of_outlines_has_every_notation_of_its_rules() -> None:
    title = title_of_words(3, 6)
    rules, grammar = outline_rules(5, title), outline_grammar(5, title)
    assert (grammar.lark, grammar.gbnf) == (lark(rules), gbnf(rules))


@cache
def outline_decoders() -> dict[str, Accepts]:
    """What decodes outlines of up to five lines."""
    return decoders(outline_rules(5, title_of_words(3, 6)))


words = st.text("abé東1-'&*:", min_size=1, max_size=7)
titles = st.lists(st.lists(words, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=6)


def written(titles: Iterable[str]) -> str:
    return "".join(outline_line(number, title) for number, title in enumerate(titles, start=1))


@settings(max_examples=100, deadline=None)
@given(
    titles,
    st.integers(0, 60),
    st.sampled_from(["", "", " ", ".", "*", "**:", "1", ":", "\n", "a", "2. **", "x y z w"]),
)
def test_all_notations_of_outlines_accept_the_same_texts_and_their_titles_are_read(
    titles: list[str], place: int, inserted: str
) -> None:
    text = written(titles)
    text = text[:place] + inserted + text[place:]
    found = verdicts(outline_decoders(), text)
    assert len(found) == 1
    if found == {True}:
        read = [outline_title(line) for line in text.splitlines()]
        assert MIN_PARTS <= len(read) <= 5
        assert written(title or "" for title in read) == text


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_whatever_one_notation_of_outlines_describes_all_accept(data: st.DataObject) -> None:
    pattern = re.compile(regex(outline_rules(3, title_of_words(2, 4))))
    text = data.draw(st.from_regex(pattern, fullmatch=True))
    assert verdicts(outline_decoders(), text) == {True}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_an_outline_of_every_length_within_the_bounds_is_accepted(count: int) -> None:
    text = written(["Solar 1", "Wind é 3", "東", "東 a b", "C# a", "2 R&D"][:count])
    assert verdicts(outline_decoders(), text) == {True}
    for other in (text.removesuffix("\n"), f"{text}\n", f" {text}", "[ONE]", ""):
        assert verdicts(outline_decoders(), other) == {False}


@pytest.mark.parametrize("count", [1, 6])
def test_an_outline_beyond_the_bounds_is_not_accepted(count: int) -> None:
    assert verdicts(outline_decoders(), written(["Solar 1"] * count)) == {False}


@pytest.mark.parametrize(("lines", "largest"), [(8, 60_000), (32, 240_000)])
def test_a_regular_expression_grows_slowly_with_the_number_of_lines(
    lines: int, largest: int
) -> None:
    assert len(regex(outline_rules(lines, title_of_words(12)))) < largest

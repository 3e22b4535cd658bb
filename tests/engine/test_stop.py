"""Stop strings are found wherever the text is cut, and nothing else is held back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plato.engine import StopMatcher
from plato.engine.stop import ends_sentence


def feed(matcher: StopMatcher, *pieces: str) -> list[str]:
    return [matcher.feed(piece) for piece in pieces]


def test_without_strings_everything_is_released_at_once() -> None:
    matcher = StopMatcher()
    assert feed(matcher, "some", " text") == ["some", " text"]
    assert matcher.flush() == ""
    assert not matcher.matched


def test_nothing_is_released_from_a_match_on() -> None:
    matcher = StopMatcher(["END"])
    assert feed(matcher, "text E", "N", "D more", "text") == ["text ", "", "", ""]
    assert matcher.matched
    assert matcher.flush() == ""


def test_what_could_begin_a_stop_string_is_held_until_it_does_not() -> None:
    matcher = StopMatcher(["END"])
    assert feed(matcher, "EN", "TER EN") == ["", "ENTER "]
    assert not matcher.matched


def test_what_is_held_at_the_end_is_flushed_once() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.feed("the EN") == "the "
    assert matcher.flush() == "EN"
    assert matcher.flush() == ""


def test_a_string_that_repeats_itself_is_found() -> None:
    matcher = StopMatcher(["aab"])
    assert feed(matcher, "aaa", "b") == ["a", ""]
    assert matcher.matched


@pytest.mark.parametrize("strings", [("beta gamma", "eta"), ("eta", "beta gamma")])
def test_the_match_that_ends_first_counts(strings: tuple[str, ...]) -> None:
    assert StopMatcher(strings).feed("alpha beta gamma") == "alpha b"


def test_the_longest_of_the_matches_that_end_together_counts() -> None:
    assert StopMatcher(["ta", "beta"]).feed("alpha beta") == "alpha "


texts = st.text(alphabet="abé\n", max_size=6)


@settings(deadline=None)
@given(
    pieces=st.lists(texts, max_size=8),
    strings=st.lists(st.text(alphabet="abé\n", min_size=1, max_size=4), max_size=3),
)
def test_the_result_does_not_depend_on_how_the_text_is_cut(
    pieces: list[str], strings: list[str]
) -> None:
    matcher, whole = StopMatcher(strings), StopMatcher(strings)
    released, text = "", ""
    for piece in pieces:
        released += matcher.feed(piece)
        text += piece
        # Also how much is held back.
        assert released == StopMatcher(strings).feed(text)
    assert whole.feed(text) == released
    assert (matcher.matched, matcher.flush()) == (whole.matched, whole.flush())
    assert whole.matched == any(string in text for string in strings)


@settings(deadline=None)
@given(
    text=st.text(alphabet="ab", max_size=20), string=st.text(alphabet="ab", min_size=1, max_size=4)
)
def test_one_string_cuts_where_it_first_stands(text: str, string: str) -> None:
    matcher = StopMatcher([string])
    assert "".join(map(matcher.feed, text)) + matcher.flush() == text.split(string)[0]


@pytest.mark.parametrize("text", ["d.", "d!", "d?", "\n", '."', ".)", "か。"])
def test_a_sentence_or_line_ends_with(text: str) -> None:
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["", "d", "3.", "..", "d,", "d:"])
def test_no_sentence_ends_with(text: str) -> None:
    assert not ends_sentence(text)

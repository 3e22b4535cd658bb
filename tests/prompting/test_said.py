"""What counts as said before a part."""

from __future__ import annotations

from plato.prompting import Tokenizer
from plato.prompting.said import MAX_QUESTION_CHARS, said

QUESTION = "Solar or wind power?"


def test_the_question_the_titles_and_the_texts_seen_are_said(tokenizer: Tokenizer) -> None:
    text = tokenizer.text("Panels are cheap.")
    found = said(tokenizer, QUESTION, ["Cost of panels", "Noise"], [text])
    assert found == tuple(sorted(set(found)))
    expected = [*tokenizer.text(" Cost of panels"), *tokenizer.text(" Noise"), *text]
    assert set(found) == {*expected, *tokenizer.text(" Solar or wind power?")}


def test_words_are_said_as_they_are_encoded_within_a_text(tokenizer: Tokenizer) -> None:
    found = said(tokenizer, QUESTION, ["Noise"], [])
    within = tokenizer.text("The Noise, Solar")
    assert within[1] in found
    assert within[-1] in found


def test_a_long_question_may_be_quoted(tokenizer: Tokenizer) -> None:
    longest = "x" * MAX_QUESTION_CHARS
    assert said(tokenizer, longest, ["Noise"], []) != said(tokenizer, "", ["Noise"], [])
    assert said(tokenizer, f"{longest}x", ["Noise"], []) == tokenizer.text(" Noise")

"""Text as tokens come: whole characters, stop strings across borders, nothing lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plato.engine import UNFINISHED, FinishReason, StopConditions
from plato.engine.text import TextStream
from tests.engine.conftest import MakeCore
from tests.engine.helpers import Stream, ask, run_alone, some_tokens

MIXED = "Rain 🌧️ falls in 東京都 — naïve 👩‍👩‍👧 families say «schön». \n\n  ok  "

ODD = (2, 10813, 230, 117, 17097, 247, 126, 28, 216)
"""The end of a turn, pieces of a cloud and of a kanji, a comma and a space."""


def pieces(tokenizer: Any, tokens: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(tokenizer.backend_tokenizer, stop)
    parts = [stream.push([token]) for token in tokens]
    return [*parts, stream.flush()]


def shown(tokenizer: Any, tokens: list[int]) -> str:
    text: str = tokenizer.decode(tokens, skip_special_tokens=True)
    return text.replace(UNFINISHED, "")


def encode(tokenizer: Any, text: str) -> list[int]:
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return tokens


class TestCharacters:
    def test_are_never_shown_half(self, tokenizer: Any) -> None:
        tokens = encode(tokenizer, MIXED)
        assert any(UNFINISHED in tokenizer.decode([token]) for token in tokens)
        parts = pieces(tokenizer, tokens)
        assert UNFINISHED not in "".join(parts)
        assert "".join(parts) == MIXED

    @settings(max_examples=100, deadline=None)
    @given(
        tokens=st.lists(st.sampled_from(ODD) | st.integers(0, 49_151), max_size=20),
        cut=st.integers(0, 20),
        group=st.integers(1, 5),
    )
    def test_whatever_the_tokens_and_however_grouped(
        self, tokenizer: Any, tokens: list[int], cut: int, group: int
    ) -> None:
        parts = pieces(tokenizer, tokens)
        assert "".join(parts) == shown(tokenizer, tokens)
        # Continued elsewhere after `cut` tokens, in groups: what is released after a token
        # depends on the tokens before it alone.
        again = TextStream(tokenizer.backend_tokenizer, ())
        cut = min(cut, len(tokens))
        released = again.push(tokens[:cut])
        assert released == "".join(parts[:cut])
        for start in range(cut, len(tokens), group):
            released += again.push(tokens[start : start + group])
            assert released == "".join(parts[:-1][: start + group])
        assert released + again.flush() == "".join(parts)

    @pytest.mark.parametrize("text", ["a🌧", "a🌧 and more", "🌧🌧"])
    @pytest.mark.hostile
    def test_bytes_that_never_become_a_character_are_not_shown(
        self, tokenizer: Any, text: str
    ) -> None:
        tokens = encode(tokenizer, text)
        assert "".join(pieces(tokenizer, tokens)) == text
        for cut in range(len(tokens)):
            for some in (tokens[:cut], tokens[:cut] + tokens[cut + 1 :]):
                assert "".join(pieces(tokenizer, some)) == shown(tokenizer, some)

    def test_special_tokens_have_no_text(self, tokenizer: Any) -> None:
        end = tokenizer.eos_token_id
        tokens = [*encode(tokenizer, "one"), end, *encode(tokenizer, " two"), end]
        assert "".join(pieces(tokenizer, tokens)) == "one two"


class TestStopStrings:
    def test_match_across_token_borders_and_are_cut(self, tokenizer: Any) -> None:
        tokens = encode(tokenizer, "The answer is forty-two, END of it.")
        parts = pieces(tokenizer, tokens, ("two, END",))
        assert "".join(parts) == "The answer is forty-"

    def test_hold_back_what_could_become_one(self, tokenizer: Any) -> None:
        stream = TextStream(tokenizer.backend_tokenizer, ("END",))
        assert stream.push(encode(tokenizer, "the E")) == "the "
        assert stream.push(encode(tokenizer, "N")) == ""
        assert stream.push(encode(tokenizer, "ough")) == "ENough"
        assert stream.flush() == ""
        assert not stream.stopped

    def test_the_match_that_ends_first_cuts(self, tokenizer: Any) -> None:
        tokens = encode(tokenizer, "alpha beta gamma")
        assert "".join(pieces(tokenizer, tokens, ("gamma", "beta"))) == "alpha "
        assert "".join(pieces(tokenizer, tokens, ("pha beta gamma", "beta"))) == "alpha "

    @settings(max_examples=60, deadline=None)
    @given(
        text=st.text(alphabet="ab🌧\n ", max_size=30),
        stop=st.lists(st.text(alphabet="ab🌧\n ", min_size=1, max_size=4), max_size=3),
        group=st.integers(1, 5),
    )
    def test_do_not_depend_on_how_tokens_are_grouped(
        self, tokenizer: Any, text: str, stop: list[str], group: int
    ) -> None:
        tokens = encode(tokenizer, text)
        parts = pieces(tokenizer, tokens, tuple(stop))
        stream = TextStream(tokenizer.backend_tokenizer, stop)
        released = ""
        for start in range(0, len(tokens), group):
            released += stream.push(tokens[start : start + group])
            assert released == "".join(parts[:-1][: start + group])
        assert released + stream.flush() == "".join(parts)

    @settings(max_examples=60, deadline=None)
    @given(
        text=st.text(alphabet="ab🌧\n ", max_size=30),
        stop=st.text(alphabet="ab🌧\n ", min_size=1, max_size=4),
    )
    def test_cut_where_they_stand_in_the_whole_text(
        self, tokenizer: Any, text: str, stop: str
    ) -> None:
        parts = pieces(tokenizer, encode(tokenizer, text), (stop,))
        assert "".join(parts) == text.split(stop)[0]

    def test_half_matched_before_a_continuation(self, tokenizer: Any) -> None:
        text = "some words, then E🌧N and END here"
        tokens = encode(tokenizer, text)
        whole = pieces(tokenizer, tokens, ("END",))
        for cut in range(len(tokens)):
            stream = TextStream(tokenizer.backend_tokenizer, ("END",))
            stream.push(tokens[:cut])
            rest = [stream.push([token]) for token in tokens[cut:]]
            assert [*rest, stream.flush()] == whole[cut:]


class TestThroughTheEngine:
    PROMPT = some_tokens(12)

    def whole(self, make_core: MakeCore, **fields: Any) -> Stream:
        return run_alone(make_core(), ask(self.PROMPT, max_tokens=16, **fields))

    def test_text_is_what_the_tokens_decode_to(self, make_core: MakeCore, tokenizer: Any) -> None:
        stream = self.whole(make_core)
        assert stream.text == tokenizer.decode(stream.tokens, skip_special_tokens=True)

    def test_a_stop_string_ends_the_sequence_and_is_cut(self, make_core: MakeCore) -> None:
        text = self.whole(make_core).text
        stop = text[len(text) // 2 : len(text) // 2 + 4]
        conditions = StopConditions(end_tokens=False, strings=(stop,))
        stream = self.whole(make_core, stop=conditions)
        assert stream.finish is FinishReason.STOP
        assert stream.text == text[: text.index(stop)]
        assert len(stream.tokens) < 16

    def test_text_held_back_comes_when_the_budget_ends(self, make_core: MakeCore) -> None:
        conditions = StopConditions(end_tokens=False, strings=("never" * 10,))
        stream = self.whole(make_core, stop=conditions)
        assert stream.finish is FinishReason.LENGTH
        assert stream.text == self.whole(make_core).text

    @pytest.mark.parametrize("cut", [0, 3, 6])
    def test_almost_at_its_budget_a_sequence_ends_with_a_sentence(
        self, make_core: MakeCore, tokenizer: Any, cut: int
    ) -> None:
        script = tuple(encode(tokenizer, "One. It is 3.5 m. No"))
        stream = self.whole(
            make_core,
            script=script,
            emitted=script[:cut],
            stop=StopConditions(end_tokens=False, sentence_from=4),
        )
        assert stream.finish is FinishReason.LENGTH
        assert tokenizer.decode(script[:cut]) + stream.text == "One. It is 3.5 m."

    @pytest.mark.parametrize("stop", [(), (" with a very long stop string",)])
    def test_a_continuation_sends_the_same_pieces(
        self, make_core: MakeCore, stop: tuple[str, ...]
    ) -> None:
        conditions = StopConditions(end_tokens=False, strings=stop)
        whole = self.whole(make_core, stop=conditions)
        for cut in (1, 5, 11, 15):
            rest = self.whole(make_core, stop=conditions, emitted=whole.tokens[:cut])
            assert [c.text for c in rest.chunks] == [c.text for c in whole.chunks[cut:]]

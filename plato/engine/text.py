"""Detokenises a sequence incrementally; incomplete characters and stop strings are held back."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from plato.engine.stop import UNFINISHED, StopMatcher, ends_sentence, without_unfinished


class TextStream:
    """Text of one sequence.

    Decoding a token alone loses what depends on its neighbours (spaces, bytes of one character),
    so each new piece is the difference between decoding a short window with and without the new
    tokens, as in text-generation-inference.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = StopMatcher(stop)
        self._tokens: list[int] = []
        self._window = 0
        self._read = 0
        self._ending = ""
        """The last two characters that were released, at most."""

    @property
    def ends_sentence(self) -> bool:
        """Whether the text released so far ends with a sentence or line."""
        return ends_sentence(self._ending)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has matched; nothing is released after it."""
        return self._stop.matched

    def push(self, tokens: Sequence[int]) -> str:
        """Add tokens; returns the text that can be released now.

        The released text depends on the tokens so far, not on how they were grouped.
        """
        text = "".join([self._push(token) for token in tokens])
        self._ending = (self._ending + text)[-2:]
        return text

    def flush(self) -> str:
        """The sequence has ended: release what was held back, without an unfinished character."""
        before = self._decode(self._window, self._read)
        rest = self._decode(self._window, len(self._tokens))[len(before) :]
        self._window = self._read = len(self._tokens)
        return self._stop.feed(without_unfinished(rest)) + self._stop.flush()

    def _push(self, token: int) -> str:
        self._tokens.append(token)
        before = self._decode(self._window, self._read)
        after = self._decode(self._window, len(self._tokens))
        if len(after) <= len(before) or after.endswith(UNFINISHED):
            return ""
        self._window, self._read = self._read, len(self._tokens)
        return self._stop.feed(without_unfinished(after[len(before) :]))

    def _decode(self, start: int, stop: int) -> str:
        text: str = self._tokenizer.decode(self._tokens[start:stop], skip_special_tokens=True)
        return text

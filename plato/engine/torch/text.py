"""From tokens to text as they come: unfinished characters and stop strings are held back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Text of one sequence.

    Decoding a token alone loses what depends on its neighbours (spaces, bytes of one character),
    so each new piece is the difference between decoding a short window with and without the new
    tokens, as text-generation-inference does it.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._hold = max((len(string) for string in stop), default=1) - 1
        self._tokens: list[int] = []
        self._window = 0
        self._read = 0
        self._held = ""
        """Decoded, but not released: it may be the start of a stop string."""
        self.stopped = False
        """Whether a stop string has matched; nothing more is released then."""

    def push(self, tokens: Sequence[int]) -> str:
        """Add tokens; returns the text that can be released now.

        What has been released depends on the tokens so far, not on how they were grouped.
        """
        return "".join([self._push(token) for token in tokens])

    def _push(self, token: int) -> str:
        self._tokens.append(token)
        before = self._decode(self._window, self._read)
        after = self._decode(self._window, len(self._tokens))
        if len(after) <= len(before) or after.endswith(REPLACEMENT):
            return ""
        self._window, self._read = self._read, len(self._tokens)
        return self._release(after[len(before) :])

    def flush(self) -> str:
        """The sequence has ended: release what was held back."""
        before = self._decode(self._window, self._read)
        rest = self._decode(self._window, len(self._tokens))[len(before) :]
        self._window = self._read = len(self._tokens)
        text = self._release(rest)
        if self.stopped:
            return text
        text, self._held = text + self._held, ""
        return text

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        cuts = [index for string in self._stop if (index := text.find(string)) >= 0]
        if cuts:
            self.stopped, self._held = True, ""
            return text[: min(cuts)]
        if self._hold == 0:
            return text
        self._held = text[-self._hold :]
        return text[: -self._hold]

    def _decode(self, start: int, stop: int) -> str:
        text: str = self._tokenizer.decode(
            self._tokens[start:stop], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

"""Text that arrives in pieces: unfinished characters and stop strings."""

from __future__ import annotations

from collections.abc import Iterable

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes the bytes of an unfinished character to. It is never shown: a limit can
cut a character that has several tokens, and a model can write bytes that are none."""


def without_unfinished(text: str) -> str:
    """`text` without characters that are not finished."""
    return text.replace(UNFINISHED, "")


def ends_sentence(text: str) -> bool:
    """Whether a sentence or line ends with `text`; its last two characters suffice.

    A full stop after a digit may be a decimal point or a number in a list.
    """
    if text.endswith((*"!?\n\N{IDEOGRAPHIC FULL STOP}", '."', ".)", ".*")):
        return True
    return text.endswith(".") and not text[:-1].endswith(tuple("0123456789."))


class StopMatcher:
    """Finds the first of several stop strings in a text that arrives in pieces.

    The match that ends first counts, and only a suffix that could begin a stop string is held
    back, so the released text does not depend on how the pieces are cut.
    """

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self._strings = tuple(strings)
        self._longest = max((len(string) for string in self._strings), default=0)
        self._held = ""
        """A suffix that could begin a stop string; shorter than the longest of them."""
        self.matched = False
        """Whether a stop string was found; nothing is released after it."""

    def feed(self, piece: str) -> str:
        """Add a piece; returns the text that can be released now, which ends before a match."""
        if self.matched:
            return ""
        text = self._held + piece
        matches = [
            (start + len(string), start)
            for string in self._strings
            if (start := text.find(string)) >= 0
        ]
        if matches:
            self.matched = True
            self._held = ""
            return text[: min(matches)[1]]
        released = len(text) - self._open_suffix(text)
        self._held = text[released:]
        return text[:released]

    def flush(self) -> str:
        """The text that is still held back, once the text has ended."""
        held, self._held = self._held, ""
        return held

    def _open_suffix(self, text: str) -> int:
        """Length of the longest suffix of `text` that begins a stop string."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            if any(string.startswith(text[-length:]) for string in self._strings):
                return length
        return 0

"""Tokens that form the structure of a plan, as opposed to its titles."""

from __future__ import annotations

from plato.planning.grammar import END, ONE
from plato.prompting import Tokenizer

_CHARACTERS = frozenset("0123456789 |,-\n[]")


def structure_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens exempt from the repetition penalty.

    These are the tokens that consist only of digits, separators and newlines, and the markers:
    every line of a plan needs them.
    """
    tokens = set(tokenizer.text(END)) | set(tokenizer.text(ONE))
    for token in range(tokenizer.size):
        text = tokenizer.decode((token,), special=True)
        if text and token not in tokenizer.special and _CHARACTERS.issuperset(text):
            tokens.add(token)
    return frozenset(tokens)

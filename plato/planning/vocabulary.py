"""Tokens that form the structure of a plan, as opposed to its titles."""

from __future__ import annotations

from plato.planning.grammar import END, ONE, Field, Fields
from plato.prompting import Tokenizer
from plato.runs import Length

_CHARACTERS = frozenset("0123456789 |,-\n[]")


def structure_tokens(tokenizer: Tokenizer, fields: Fields) -> frozenset[int]:
    """Tokens exempt from the repetition penalty.

    These are the tokens that consist only of digits, separators and newlines, the markers, and the
    lengths if lines have them: every line of a plan needs them.
    """
    words = [END, ONE, *(f" {length}" for length in Length if Field.LENGTH in fields)]
    tokens = {token for word in words for token in tokenizer.text(word)}
    for token in range(tokenizer.size):
        text = tokenizer.decode((token,), special=True)
        if text and token not in tokenizer.special and _CHARACTERS.issuperset(text):
            tokens.add(token)
    return frozenset(tokens)

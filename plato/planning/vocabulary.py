"""Which tokens belong to a plan's structure rather than to its titles."""

from __future__ import annotations

from plato.planning.grammar import END, ONE
from plato.prompting import Tokenizer

_CHARACTERS = frozenset("0123456789 |,-\n[]")


def structure_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that a repetition penalty has to leave alone.

    Everything made of digits, separators and line ends only, and the markers: a line of a plan
    needs them again and again.
    """
    special = frozenset(tokenizer.hf.all_special_ids)
    tokens = set(tokenizer.text(END)) | set(tokenizer.text(ONE))
    for token in range(len(tokenizer.hf)):
        text = tokenizer.decode((token,), special=True)
        if text and token not in special and _CHARACTERS.issuperset(text):
            tokens.add(token)
    return frozenset(tokens)

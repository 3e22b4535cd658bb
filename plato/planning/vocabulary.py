"""Tokens that form the structure of an outline, as opposed to its titles."""

from __future__ import annotations

from plato.prompting import Tokenizer

_CHARACTERS = frozenset("0123456789.*: \n")


def structure_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens exempt from the repetition penalty, because every line of an outline needs them."""
    return frozenset(
        token
        for token in range(tokenizer.size)
        if token not in tokenizer.special
        and (text := tokenizer.decode((token,), special=True))
        and _CHARACTERS.issuperset(text)
    )

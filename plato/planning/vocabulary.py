"""Tokens that form the structure of an outline, as opposed to its titles."""

from __future__ import annotations

from plato.prompting import Tokenizer

_CHARACTERS = frozenset("0123456789.*: \n")


def structure_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens exempt from the repetition penalty, because every line of an outline needs them."""
    return tokenizer.tokens_of(_CHARACTERS)

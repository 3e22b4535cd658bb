"""Walks through a grammar: what a model would do, without the model."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import llguidance
import numpy as np

from plato.prompting import Tokenizer

PLAIN = ("**:", "-", "/", " ", *"123456", " word", "word")
"""Texts that random walks prefer, so that titles end and have numbers."""


@dataclass(frozen=True)
class Walk:
    text: str
    """Without the end of the turn."""
    forced: tuple[str, ...]
    """Texts of the tokens that the grammar forced."""


def allowed(matcher: Any) -> np.ndarray:
    """Ids of the tokens that may come next."""
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
    return np.flatnonzero(bits)


def random_walk(tokenizer: Tokenizer, matching: Any, grammar: str, seed: int) -> Walk:
    """Choose among allowed tokens at random, structure more often than its share."""
    choose = random.Random(seed)
    common = {token for text in PLAIN for token in tokenizer.text(text)} | tokenizer.end_tokens
    matcher = llguidance.LLMatcher(matching, grammar)
    tokens: list[int] = []
    forced: list[str] = []
    while not matcher.is_stopped():
        step = matcher.compute_ff_tokens()
        forced += [tokenizer.decode((token,)) for token in step]
        if not step:
            ids = allowed(matcher).tolist()
            plain = [token for token in ids if token in common]
            step = [choose.choice(plain if plain and choose.random() < 0.7 else ids)]
        assert matcher.consume_tokens(step), matcher.get_error()
        tokens += step
    assert not matcher.is_error(), matcher.get_error()
    if tokens[-1] in tokenizer.end_tokens:
        tokens.pop()
    return Walk(tokenizer.decode(tokens, special=True), tuple(forced))


def follow(tokenizer: Tokenizer, matching: Any, grammar: str, text: str) -> Walk:
    """Follow `text` as far as the grammar leaves a choice; raises where it does not match."""
    matcher = llguidance.LLMatcher(matching, grammar)
    tokens = tokenizer.text(text)
    forced: list[str] = []
    place = 0
    while place < len(tokens):
        step = matcher.compute_ff_tokens()
        forced += [tokenizer.decode((token,)) for token in step]
        step = step or [tokens[place]]
        assert tuple(step) == tokens[place : place + len(step)]
        if not matcher.consume_tokens(step):
            raise ValueError(matcher.get_error())
        place += len(step)
    return Walk(text, tuple(forced))

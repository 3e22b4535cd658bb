"""What a server should have cached, by what it was sent."""

from __future__ import annotations

from plato.engine import Prompt, Segment
from plato.engine.openai.prefixes import SentPrefixes


def prompt(*lengths: int, tenant: str = "t") -> Prompt:
    return Prompt(tuple(Segment((at,) * length) for at, length in enumerate(lengths)), tenant)


def test_a_prompt_that_was_sent_is_cached_with_all_its_prefixes() -> None:
    sent = SentPrefixes(1)
    sent.note(prompt(5, 10, 3), 18)
    assert sent.cached(prompt(5, 10, 3, 4)) == 18
    assert sent.cached(prompt(5, 10, 4)) == 15
    assert sent.cached(prompt(5, 10, 3, tenant="other")) == 0
    assert sent.cached(prompt(6)) == 0


def test_only_whole_blocks_count() -> None:
    sent = SentPrefixes(16)
    sent.note(prompt(10, 30), 40)
    assert sent.cached(prompt(10, 30)) == 32
    assert sent.cached(prompt(10, 5)) == 0


def test_a_server_that_reuses_nothing_has_nothing() -> None:
    sent = SentPrefixes(0)
    sent.note(prompt(10), 10)
    assert sent.cached(prompt(10)) == 0


def test_the_least_recently_used_is_forgotten_and_reported() -> None:
    sent = SentPrefixes(1, max_prefixes=2)
    first, second, third = (prompt(length) for length in (1, 2, 3))
    sent.note(first, 1)
    sent.note(second, 2)
    sent.note(first, 1)
    batch = sent.events.take()
    assert batch is not None
    assert {stored.tokens for stored in batch.stored} == {1, 2}
    sent.note(third, 3)
    batch = sent.events.take()
    assert batch is not None
    assert ([stored.tokens for stored in batch.stored], batch.removed) == ([3], second.hashes)
    assert {stored.tokens for stored in sent.events.snapshot().stored} == {1, 3}
    assert sent.events.take() is None

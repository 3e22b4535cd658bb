"""What a server should have cached, by what it was sent."""

from __future__ import annotations

from plato.engine import Prompt, Segment
from plato.engine.openai.prefixes import SentPrefixes


def prompt(*lengths: int, tenant: str = "t") -> Prompt:
    return Prompt(tuple(Segment((at,) * length) for at, length in enumerate(lengths)), tenant)


def test_a_prompt_that_was_sent_is_cached_with_all_its_prefixes() -> None:
    sent = SentPrefixes(1, public_sharing=True)
    sent.note(prompt(5, 10, 3), 18)
    assert sent.cached(prompt(5, 10, 3, 4)) == 18
    assert sent.cached(prompt(5, 10, 4)) == 15
    assert sent.cached(prompt(5, 10, 3, tenant="other")) == 0
    assert sent.cached(prompt(6)) == 0


def test_only_whole_blocks_count() -> None:
    sent = SentPrefixes(16, public_sharing=True)
    sent.note(prompt(10, 30), 40)
    assert sent.cached(prompt(10, 30)) == 32
    assert sent.cached(prompt(10, 5)) == 0


def test_a_server_that_reuses_nothing_has_nothing() -> None:
    sent = SentPrefixes(0, public_sharing=True)
    sent.note(prompt(10), 10)
    assert sent.cached(prompt(10)) == 0


def test_the_least_recently_used_is_forgotten_and_reported() -> None:
    sent = SentPrefixes(1, public_sharing=True, max_prefixes=2)
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


def test_without_public_sharing_a_tenant_has_not_what_others_have_sent() -> None:
    def asked(tenant: str) -> Prompt:
        return Prompt((Segment((1,) * 20, public=True), Segment((2,) * 5)), tenant)

    for shared in (True, False):
        sent = SentPrefixes(1, public_sharing=shared)
        sent.note(asked("one"), 25)
        assert sent.cached(asked("one")) == 25
        assert sent.cached(asked("two")) == (20 if shared else 0)
        assert len(sent.events.snapshot().stored) == (2 if shared else 1)
        assert bool({*sent.chains(asked("one"))} & {*sent.chains(asked("two"))}) is shared
        sent.note(asked(""), 25)
        assert sent.cached(asked("")) == 25
        assert sent.cached(asked("two")) == (20 if shared else 0)

"""Tokens a minute: who has had too many waits, and nobody else does."""

from __future__ import annotations

import pytest

from plato.errors import RateLimitError
from plato.runs import token_rates
from plato.runs.token_rates import TokenRates
from tests.clock import Clock

pytestmark = pytest.mark.hostile


def wait_s(rates: TokenRates, tenant: str) -> float | None:
    """How long the tenant is told to wait; None if it need not."""
    try:
        rates.require(tenant)
    except RateLimitError as error:
        return error.retry_after_s
    return None


def test_a_tenant_that_had_too_many_waits_until_there_are_some_again() -> None:
    clock = Clock()
    rates = TokenRates(600, clock)
    rates.charge("loud", 590)
    assert wait_s(rates, "loud") is None
    rates.charge("loud", 30)
    told = wait_s(rates, "loud")
    assert told == pytest.approx(2.1)
    assert wait_s(rates, "quiet") is None
    clock.now += told
    assert wait_s(rates, "loud") is None


def test_what_is_saved_is_at_most_a_minute() -> None:
    clock = Clock()
    rates = TokenRates(600, clock)
    rates.charge("loud", 100)
    clock.now += 3600
    rates.charge("loud", 600)
    assert wait_s(rates, "loud") is not None


def test_without_a_limit_nobody_waits() -> None:
    rates = TokenRates(None)
    rates.charge("loud", 10**9)
    assert wait_s(rates, "loud") is None


def test_tenants_whose_bucket_is_full_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_rates, "MAX_TENANTS", 3)
    clock = Clock()
    rates = TokenRates(600, clock)
    for number in range(3):
        rates.charge(str(number), 10)
    rates.charge("loud", 1000)
    clock.now += 2
    rates.charge("late", 10)
    assert rates._buckets.keys() == {"loud", "late"}
    assert wait_s(rates, "loud") is not None

"""Owners of sequences stay while they renew."""

from __future__ import annotations

import pytest

from plato.engine import Lease
from plato.engine.leases import Leases
from tests.clock import Clock


@pytest.fixture
def held(clock: Clock) -> Leases:
    held = Leases(clock)
    held.grant(Lease("a", 1.0))
    held.grant(Lease("b", 2.0))
    held.grant(None)
    return held


def test_an_owner_expires_once_when_its_time_is_up(held: Leases, clock: Clock) -> None:
    assert held.take_expired() == frozenset()
    clock.now += 1.0
    assert held.take_expired() == {"a"}
    assert held.take_expired() == frozenset()
    assert held.owners == {"b"}


def test_a_renewal_extends_and_never_shortens(held: Leases, clock: Clock) -> None:
    held.renew("a", 5.0)
    held.renew("b", 0.1)
    clock.now += 1.0
    assert held.take_expired() == frozenset()
    clock.now += 1.0
    assert held.take_expired() == {"b"}


def test_owners_without_sequences_are_unknown(held: Leases) -> None:
    held.renew("nobody", 5.0)
    held.retain({"b", None, "nobody"})
    assert held.owners == {"b"}


def test_time_that_this_process_lost_counts_for_nobody(held: Leases, clock: Clock) -> None:
    held._checked_at -= 3.0
    clock.now += 3.0
    assert held.take_expired() == frozenset()
    clock.now += 1.1
    assert held.take_expired() == {"a"}

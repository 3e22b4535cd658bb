import pytest

from plato.context import CircuitBreaker
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(threshold=3, cooldown_s=2.0, clock=clock)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        assert breaker.admit()
        breaker.failed()


def test_it_admits_and_is_available_at_first(breaker):
    assert breaker.admit()
    assert breaker.available


def test_one_failure_is_not_available_but_still_admits(breaker):
    fail(breaker)
    assert not breaker.available
    assert breaker.admit()


def test_it_opens_after_failures_in_a_row(breaker):
    fail(breaker, 3)
    assert not breaker.admit()


def test_a_success_in_between_starts_the_count_again(breaker):
    fail(breaker, 2)
    assert breaker.admit()
    breaker.succeeded()
    assert breaker.available
    fail(breaker, 2)
    assert breaker.admit()


def test_one_timeout_opens_it(breaker):
    assert breaker.admit()
    breaker.failed(timed_out=True)
    assert not breaker.admit()


def test_after_the_cooldown_one_probe_is_admitted_alone(breaker, clock):
    fail(breaker, 3)
    clock.now += 1.9
    assert not breaker.admit()
    clock.now += 0.2
    assert breaker.admit()
    assert not breaker.admit()
    assert not breaker.available


def test_a_probe_that_succeeds_closes_it(breaker, clock):
    fail(breaker, 3)
    clock.now += 2
    assert breaker.admit()
    breaker.succeeded()
    assert breaker.available
    assert breaker.admit()
    assert breaker.admit()


def test_a_probe_that_fails_opens_it_for_another_cooldown(breaker, clock):
    fail(breaker, 3)
    clock.now += 2
    fail(breaker)
    clock.now += 1.9
    assert not breaker.admit()
    clock.now += 0.1
    assert breaker.admit()


def test_a_probe_that_is_given_up_lets_the_next_call_probe(breaker, clock):
    fail(breaker, 3)
    clock.now += 2
    assert breaker.admit()
    breaker.abandoned()
    assert breaker.admit()
    assert not breaker.admit()

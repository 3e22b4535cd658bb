"""Whose fault a failed attempt is."""

from __future__ import annotations

from plato.engine.errors import KeyRefusedError
from plato.errors import UnavailableError
from plato.scheduling.failures import classify_failure


def test_a_key_that_an_upstream_refuses_is_no_fault_of_the_client() -> None:
    failure = classify_failure(KeyRefusedError("the server refuses Plato's key"), "part 1", "one")
    assert isinstance(failure.error, UnavailableError)
    assert failure.retryable
    assert failure.blames_replica

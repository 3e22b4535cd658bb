"""Whose fault a failed attempt is."""

from __future__ import annotations

import pytest

from plato.engine import (
    ContextExceededError,
    EngineBusyError,
    EngineError,
    EngineUnreadyError,
    UpstreamError,
)
from plato.engine.errors import KeyRefusedError
from plato.errors import ContextLengthError, OverloadedError, PlatoError, UnavailableError
from plato.scheduling.failures import classify_failure


def test_a_key_that_an_upstream_refuses_is_no_fault_of_the_client() -> None:
    failure = classify_failure(KeyRefusedError("the server refuses Plato's key"), "part 1", "one")
    assert isinstance(failure.error, UnavailableError)
    assert failure.retryable
    assert failure.blames_replica


@pytest.mark.parametrize(
    ("error", "kind", "retry_after_s"),
    [
        (EngineBusyError("full"), OverloadedError, 1.0),
        (EngineBusyError("full", 7.0), OverloadedError, 7.0),
        (EngineUnreadyError("loading", 7.0), UnavailableError, 7.0),
        (UpstreamError("away"), UnavailableError, 1.0),
    ],
)
def test_an_error_names_part_and_decoder_and_says_when_to_ask_again(
    error: EngineError, kind: type[PlatoError], retry_after_s: float
) -> None:
    failure = classify_failure(error, "part 1", "one")
    assert type(failure.error) is kind
    assert failure.error.message == f"part 1: decoder one: {error}"
    assert failure.error.retry_after_s == retry_after_s


def test_a_prompt_that_is_too_long_has_the_code_for_it() -> None:
    failure = classify_failure(ContextExceededError("9 tokens pass 5"), "part 1", "one")
    assert isinstance(failure.error, ContextLengthError)
    assert failure.error.code == "context_length_exceeded"
    assert not failure.retryable

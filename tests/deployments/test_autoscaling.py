"""Decoders follow the tokens that wait and decode, within their bounds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.autoscaling import (
    USUAL_OUTPUT,
    by_tokens,
    decoder_scaling,
    decoders_for,
    token_load,
)
from plato.engine import Load
from plato.settings import Settings


@given(st.floats(0, 1e7), st.integers(1, 10_000), st.integers(1, 50), st.integers(0, 50))
def test_there_are_enough_within_the_bounds_and_no_more(
    tokens: float, target: int, least: int, more: int
) -> None:
    most = least + more
    wanted = decoders_for(tokens, target, least, most)
    assert least <= wanted <= most
    assert wanted == most or wanted * target >= tokens
    assert wanted == least or (wanted - 1) * target < tokens


def test_a_long_prompt_counts_by_its_length_and_not_as_one_request() -> None:
    short = token_load(Load(running=4))
    long = token_load(Load(running=1, waiting=1, prefill_tokens=8000))
    assert short == {"tokens": 4 * USUAL_OUTPUT}
    assert long == {"tokens": 8000 + 2 * USUAL_OUTPUT}


def context(reported: dict[str, float] | None, target: float = 1000.0) -> SimpleNamespace:
    return SimpleNamespace(
        aggregated_metrics={"tokens": reported} if reported is not None else None,
        config=SimpleNamespace(target_ongoing_requests=target),
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=8,
        policy_state={"kept": 1},
    )


@pytest.mark.parametrize(
    ("reported", "wanted"),
    [(None, 1), ({}, 1), ({"a": 900.0}, 1), ({"a": 900.0, "b": 1200.0}, 3), ({"a": 1e6}, 8)],
)
def test_the_policy_adds_up_what_decoders_report(
    reported: dict[str, float] | None, wanted: int
) -> None:
    decision, state = by_tokens(context(reported))  # type: ignore[arg-type]
    assert decision == wanted
    assert state == {"kept": 1}


def test_without_a_bound_the_number_is_fixed() -> None:
    assert decoder_scaling(Settings(decoders=3)) == {"num_replicas": 3}
    config = decoder_scaling(Settings(decoders=1, max_decoders=4))["autoscaling_config"]
    assert (config.min_replicas, config.max_replicas) == (1, 4)
    assert str(config.policy.policy_function).endswith("by_tokens")


def test_a_bound_below_the_number_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_decoders is 2"):
        Settings(decoders=3, max_decoders=2)

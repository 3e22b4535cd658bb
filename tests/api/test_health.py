"""Readiness with several decoders, of which some do not decode."""

from __future__ import annotations

import pytest

from plato.api.health import readiness
from plato.engine import EngineClosedError, EngineStats, Load, replica_status
from plato.engine.capabilities import BUILT_IN
from plato.errors import UnavailableError


def stats(**fields: object) -> EngineStats:
    numbers = dict.fromkeys(
        ("context_length", "kv_capacity", "kv_used", "steps", "prompt_tokens", "cached_tokens"), 0
    )
    return EngineStats(
        **{  # type: ignore[arg-type]
            **numbers,
            "output_tokens": 0,
            "model": "m",
            "epoch": "e",
            "dtype": "vllm",
            "load": Load(),
            "capabilities": BUILT_IN,
            **fields,
        }
    )


WELL = replica_status("well", stats())
AWAY = replica_status("away", stats(available=False))
SILENT = replica_status("silent", TimeoutError())
FAILED = replica_status("failed", EngineClosedError("it has another model"))


def test_one_decoder_that_decodes_is_enough() -> None:
    ready = readiness([FAILED, AWAY, SILENT, WELL])
    assert ready["decoders"] == {
        "failed": "failed",
        "away": "away",
        "silent": "away",
        "well": "ready",
    }
    assert ready["dtype"] == "vllm"


def test_without_any_the_reasons_are_told() -> None:
    with pytest.raises(UnavailableError) as raised:
        readiness([FAILED, AWAY, SILENT])
    assert raised.value.message == (
        "it has another model; its server does not answer; TimeoutError"
    )
    with pytest.raises(UnavailableError, match="no decoder yet"):
        readiness([])

"""Configuration of the built-in engine."""

from __future__ import annotations

from dataclasses import dataclass

from plato.engine.pace import Pace


@dataclass(frozen=True, slots=True)
class TorchEngineConfig:
    """What the built-in engine needs to know."""

    model_folder: str
    """Local folder with configuration, weights and tokenizer."""
    name: str = "local"
    """Name of the replica, as chunks carry it."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one."""
    dtype: str = "auto"
    """`float32`, `bfloat16`, `int8` (weights, on a CPU), or `auto`: bfloat16 on a GPU, int8 on
    a CPU with instructions for it, else float32."""
    kv_budget_bytes: int = 1 << 30
    """Hard budget for KV."""
    max_sequences: int = 16
    """Sequences computed side by side."""
    max_waiting: int = 256
    """Sequences that wait for a place; past it requests are refused."""
    prefill_chunk: int = 256
    """Prompt tokens computed in one step, at the most, all sequences together."""
    pace: Pace | None = None
    """Sleep at this pace instead of computing."""
    reuse: bool = True
    """False computes every prompt from its start, to measure what reuse brings."""
    forced_tokens: bool = True
    """False decodes the tokens that a grammar leaves no choice about, for the same reason."""
    threads: int | None = None
    """Threads of one operation; `None` leaves torch's own choice."""

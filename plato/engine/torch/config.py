"""Configuration of the built-in engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plato.engine.tokenizer_config import TokenizerConfig


@dataclass(frozen=True, slots=True)
class TorchEngineConfig:
    """Configuration of the built-in engine."""

    model_folder: str
    """Local folder with configuration, weights and tokenizer."""
    cache_dir: str | None = None
    """Folder for packed weights; `None`: ~/.cache/plato."""
    name: str = "local"
    """Name of the replica in chunks."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU if there is one."""
    dtype: str = "auto"
    """`float32`, `bfloat16`, `int8` (weights, on a CPU), or `auto`: bfloat16 on a GPU; on a CPU
    int8 if the kernels can be compiled, else float32."""
    kv_budget_bytes: int = 1 << 30
    """Hard limit of KV memory."""
    max_sequences: int = 16
    """Sequences in one batch."""
    max_waiting: int = 256
    """Sequences in the queue; beyond it requests are refused."""
    prefill_chunk: int = 256
    """Prompt tokens computed in one step, over all sequences."""
    branch_slowdown: float | None = None
    """How many times as long steps may take because of branches, see `BranchRegulator`; `None`:
    branches are not delayed."""
    token_target_s: float | None = None
    """Target for the time between tokens, instead."""
    threads: int | None = None
    """Threads of one operation; `None` keeps torch's default."""
    tokenizer: TokenizerConfig | None = None
    """The tokenizer in `model_folder`, if this process has loaded it already."""
    adapter: Path | None = None
    """Folder of a PEFT adapter, for prompts with the fingerprint of the model with it."""

"""Configuration of an engine that is vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plato.engine.prompt import Prompt
from plato.engine.tokenizer_config import TokenizerConfig


@dataclass(frozen=True, slots=True)
class VllmConfig:
    """One model, and what vLLM may use for it."""

    model_folder: str
    """Local folder with configuration, weights and tokenizer."""
    tokenizer: TokenizerConfig
    """The one in `model_folder`."""
    name: str = "local"
    """Name of the replica in chunks."""
    fingerprint: str = ""
    """Of the model with its adapter, in prompts (see `plato.engine.fingerprint`)."""
    adapter: Path | None = None
    """Folder of a PEFT adapter (LoRA)."""
    base_fingerprint: str = ""
    """Of the model without the adapter."""
    dtype: str = "auto"
    """`float32`, `bfloat16`, or `auto`: as vLLM chooses."""
    tensor_parallel_size: int = 1
    """GPUs that share the model."""
    gpu_memory_utilization: float | None = None
    """Share of each GPU's memory that vLLM takes; `None`: its default."""
    kv_budget_bytes: int = 1 << 30
    """KV memory on a CPU."""
    max_sequences: int = 16
    """Sequences in one batch."""
    max_waiting: int = 256
    """Sequences in the queue; beyond it requests are refused."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of vLLM's `AsyncEngineArgs`, such as `quantization`."""

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of prompts that it takes."""
        return (self.fingerprint,) + ((self.base_fingerprint,) if self.adapter else ())

    def adapts(self, prompt: Prompt) -> bool:
        """Whether a prompt is computed with the adapter."""
        return self.adapter is not None and prompt.fingerprint in ("", self.fingerprint)

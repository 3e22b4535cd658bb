"""What the engine needs of a model."""

from __future__ import annotations

from typing import Protocol

import torch

from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.torch.attention import Rows
from plato.engine.torch.pool import KVPool


class Model(Protocol):
    """A model that `EngineCore` can run: `LanguageModel`, or a stand-in for it."""

    tokenizer: TokenizerConfig
    context_length: int
    vocabulary: int
    """Number of logits."""
    end_tokens: frozenset[int]
    precision: str
    has_own_threads: bool
    """Whether it computes with threads other than torch's."""

    @property
    def kv_bytes_per_token(self) -> int:
        """KV bytes of one token."""
        ...

    def new_pool(self, capacity: int) -> KVPool:
        """A pool of `capacity` tokens for this model."""
        ...

    def forward(
        self, pool: KVPool, tokens: list[int], rows: list[Rows], wanted: list[int]
    ) -> torch.Tensor:
        """Compute one step; see `LanguageModel.forward`."""
        ...

"""A model that takes the time of another one and computes nothing.

For studies of many replicas on few cores: tree, queues, steps and everything around them are the
real ones, and a step sleeps as long as it was measured to take. What it writes means nothing.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch
from transformers import AutoTokenizer

from plato.engine.errors import EngineError
from plato.engine.pace import step_seconds
from plato.engine.torch.attention import Rows
from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.pool import KVPool

VOCABULARY = 512
"""Logits in a row: enough to choose from."""
FIRST_WORD = 100
"""Token ids below are markup in many vocabularies."""


class Model(Protocol):
    """What `EngineCore` needs of a model."""

    tokenizer: Any
    context_length: int
    vocabulary: int
    end_tokens: frozenset[int]
    precision: str
    has_own_threads: bool

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV that one token takes."""
        ...

    def new_pool(self, capacity: int) -> KVPool:
        """A pool of `capacity` tokens that fits this model."""
        ...

    def forward(
        self, pool: KVPool, tokens: list[int], rows: list[Rows], wanted: list[int]
    ) -> torch.Tensor:
        """Compute one step; see `LanguageModel.forward`."""
        ...


class PacedModel:
    """Sleeps through its steps, and chooses each token by the one before it."""

    def __init__(self, config: TorchEngineConfig) -> None:
        if config.pace is None:
            raise EngineError("a paced model needs a pace")
        self._pace = config.pace
        self.tokenizer: Any = AutoTokenizer.from_pretrained(config.model_folder)
        self.context_length = config.pace.context_length
        self.vocabulary = VOCABULARY
        self.end_tokens: frozenset[int] = frozenset()
        self.precision = "paced"
        self.has_own_threads = False

    @property
    def kv_bytes_per_token(self) -> int:
        """That of the model whose time it takes."""
        return self._pace.kv_bytes_per_token

    def new_pool(self, capacity: int) -> KVPool:
        """A pool whose slots are numbers only."""
        return KVPool(
            layers=1,
            heads=1,
            head_dim=1,
            capacity=capacity,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )

    def forward(
        self, pool: KVPool, tokens: list[int], rows: list[Rows], wanted: list[int]
    ) -> torch.Tensor:
        """Sleep for the time of the step; returns float32 [wanted, vocabulary]."""
        started = time.perf_counter()
        logits = torch.zeros((len(wanted), VOCABULARY))
        words = VOCABULARY - FIRST_WORD
        for row, index in enumerate(wanted):
            logits[row, FIRST_WORD + (31 * tokens[index] + 7) % words] = 1.0
        decoding = sum(item.count == 1 for item in rows)
        due = step_seconds(self._pace, decoding, len(tokens) - decoding)
        time.sleep(max(0.0, due - (time.perf_counter() - started)))
        return logits

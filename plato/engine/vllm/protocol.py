"""What the engine needs of vLLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from plato.engine.protocol import GenerateRequest
from plato.engine.vllm.blocks import BlockEvent
from plato.engine.vllm.statistics import Statistics


@dataclass(frozen=True, slots=True)
class Step:
    """What vLLM has decoded of a sequence since the last step."""

    tokens: tuple[int, ...]
    scores: tuple[float, ...]
    """Log probabilities of `GenerateRequest.score` at the first of `tokens`."""
    cached_tokens: int
    """Prompt tokens that were cached."""


class Backend(Protocol):
    """`VllmBackend`, or a stand-in for it. Belongs to the event loop in which it is made."""

    statistics: Statistics
    context_length: int
    """Longest sequence, in tokens."""
    vocabulary: int
    """Number of logits."""
    dtype: str
    block_tokens: int
    """Length of a block of KV."""
    kv_tokens: int
    """Size of the KV cache."""

    @property
    def adapter(self) -> str | None:
        """Name of the adapter in KV events, if there is one."""
        ...

    @property
    def failed(self) -> bool:
        """Whether vLLM's processes have ended by themselves."""
        ...

    def generate(
        self, request: GenerateRequest, end_tokens: frozenset[int]
    ) -> AsyncGenerator[Step]:
        """Decode a sequence, up to one of `end_tokens` or its budget; closing the iterator aborts.

        Raises `RequestRefusedError`, `EngineClosedError` if vLLM has failed, and `EngineError`.
        """
        ...

    def kv_events(self) -> AsyncGenerator[list[BlockEvent]]:
        """Changes of the KV cache, in batches."""
        ...

    def shutdown(self) -> None:
        """End vLLM's processes."""
        ...

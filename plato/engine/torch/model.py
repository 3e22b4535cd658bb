"""A causal language model with attention over a KV pool."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch

from plato.engine.errors import EngineError
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.torch.attention import Rows, StepBatch
from plato.engine.torch.kernels import has_compiled_kernels
from plato.engine.torch.pool import KVPool, bytes_per_token


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a model, and its end tokens."""

    layers: int
    kv_heads: int
    head_dim: int
    context_length: int
    vocabulary: int
    """Number of logits."""
    end_tokens: frozenset[int]


class LanguageModel(abc.ABC):
    """A causal language model with attention over a KV pool."""

    has_own_threads = False
    """Whether the layers are computed by threads other than torch's; see `use_one_thread`."""

    def __init__(
        self, shape: ModelShape, tokenizer: TokenizerConfig, device: torch.device, precision: str
    ) -> None:
        """`precision`: `float32`, `bfloat16` or `int8`."""
        self.tokenizer = tokenizer
        self.device = device
        self.precision = precision
        self.dtype, self.kv_dtype = types_of(precision)
        """Types of the activations and of KV."""
        self.layers = shape.layers
        self.kv_heads = shape.kv_heads
        self.head_dim = shape.head_dim
        self.context_length = shape.context_length
        self.vocabulary = shape.vocabulary
        self.end_tokens = shape.end_tokens
        self._tile: int | None = None
        """Rows that the native attention computes together; `None`: torch computes attention."""

    @property
    def kv_bytes_per_token(self) -> int:
        """KV bytes of one token."""
        return bytes_per_token(self.layers, self.kv_heads, self.head_dim, self.kv_dtype)

    def new_pool(self, capacity: int, dtype: torch.dtype | None = None) -> KVPool:
        """A pool of `capacity` tokens for this model; `dtype` overrides the KV type (self-test)."""
        return KVPool(
            layers=self.layers,
            heads=self.kv_heads,
            head_dim=self.head_dim,
            capacity=capacity,
            dtype=dtype or self.kv_dtype,
            device=self.device,
        )

    def forward(
        self, pool: KVPool, tokens: list[int], rows: list[Rows], wanted: list[int]
    ) -> torch.Tensor:
        """Compute one step.

        `tokens` are the new tokens of all sequences in the order of `rows`; `wanted` are the
        indices of tokens whose logits are needed. Returns float32 [wanted, vocabulary].
        """
        hidden = self._hidden(tokens, StepBatch(pool, rows, self.device, self._tile))
        if not wanted:
            return torch.empty((0, self.vocabulary), device=self.device)
        return self._logits(hidden[wanted]).float()

    @abc.abstractmethod
    def _hidden(self, tokens: list[int], batch: StepBatch) -> torch.Tensor:
        """Output of the decoder, [tokens, hidden size]; stores the tokens' KV in the pool."""

    @abc.abstractmethod
    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, hidden size] to [rows, vocabulary]."""


def types_of(precision: str) -> tuple[torch.dtype, torch.dtype]:
    """Types of activations and of KV. With int8 weights, activations are float32."""
    if precision == "int8":
        return torch.float32, torch.bfloat16
    dtype: torch.dtype = getattr(torch, precision)
    return dtype, dtype


def use_one_thread() -> None:
    """Make torch compute in the calling thread only.

    For models with threads of their own: torch computes little beside them, and its threads spin
    for a while after each operation and compete for cores (at width 8, a step takes 17.5 ms
    instead of 20).
    """
    torch.set_num_threads(1)


def choose_device(name: str) -> torch.device:
    """The configured device. Raises `EngineError`."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise EngineError("device is cuda, but torch sees no GPU; set the device to cpu or auto")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """`float32`, `bfloat16` or `int8` for a configured dtype. Raises `EngineError`."""
    if name == "auto":
        if device.type == "cuda":
            return "bfloat16"
        return "int8" if has_compiled_kernels() else "float32"
    if name == "int8" and device.type != "cpu":
        raise EngineError("int8 is for CPUs; set the dtype to bfloat16 or auto")
    if name == "int8" and not has_compiled_kernels():
        raise EngineError(
            "int8 needs kernels that are compiled at the first start; install gcc, set CC to a C "
            "compiler, or set the dtype to float32 or auto"
        )
    return name

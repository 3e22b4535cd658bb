"""The test that every model passes before it serves: its logits against those of transformers.

Model families differ in more ways than their configuration says, and a model that would be computed
incorrectly must not be served.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import torch
from torch.nn.functional import kl_div

from plato.engine.errors import ModelNotSupportedError
from plato.engine.torch.attention import Rows
from plato.engine.torch.pool import KVPool

COUNT = 24
"""Tokens of the test."""
TOLERANCE = 2e-3
"""Largest allowed difference between logits in float32."""
DIVERGENCE = 0.1
"""Largest allowed mean Kullback-Leibler divergence (nats per token) of bfloat16 and int8. Their
rounding moves single logits by any amount (by 0.44 in a random model of 8B), and the distribution
by little: by 0.003 in the default model with int8. An incorrectly computed part gives several."""


class Computes(Protocol):
    """What is tested."""

    precision: str
    dtype: torch.dtype
    kv_dtype: torch.dtype

    def new_pool(self, capacity: int, dtype: torch.dtype | None = None) -> KVPool:
        """A pool whose KV is of type `dtype`; `None`: `kv_dtype`."""
        ...

    def forward(
        self, pool: KVPool, tokens: list[int], rows: list[Rows], wanted: list[int]
    ) -> torch.Tensor:
        """Logits; see `LanguageModel.forward`."""
        ...


def self_test_tokens(vocabulary: int, context_length: int) -> list[int]:
    """The tokens of the test, the same for each model of this vocabulary."""
    generator = torch.Generator().manual_seed(0)
    count = min(COUNT, context_length)
    tokens: list[int] = torch.randint(vocabulary, (count,), generator=generator).tolist()
    return tokens


@torch.inference_mode()
def require_equal(
    model: Computes, tokens: list[int], expected: torch.Tensor, *, exact: bool
) -> None:
    """Raise `ModelNotSupportedError` unless `tokens` get the `expected` logits.

    `expected` is [1 or 2, tokens, vocabulary]: without the adapter and, if the model has one, with
    it. With `exact`, KV is kept in the type of the activations and
    single logits are compared; without, their distribution.
    """
    for adapted, logits in enumerate(expected):
        _require_equal(model, tokens, logits, adapted=bool(adapted), exact=exact)


def _require_equal(
    model: Computes, tokens: list[int], expected: torch.Tensor, *, adapted: bool, exact: bool
) -> None:
    count = len(tokens)
    pool = model.new_pool(count, model.dtype if exact else None)
    slots = pool.allocate(count)
    half = count // 2
    pieces = []
    for start, stop in pairwise((0, half, count - 1, count)):
        rows = [Rows(slots[:stop], stop - start, adapted)]
        pieces.append(model.forward(pool, tokens[start:stop], rows, list(range(stop - start))))
    logits = torch.cat(pieces)
    if exact:
        what, limit = "logits differ", TOLERANCE
        difference = (logits - expected).abs().max().item()
    else:
        what, limit = "their distribution diverges", DIVERGENCE
        difference = kl_div(
            logits.log_softmax(-1),
            expected.log_softmax(-1),
            reduction="batchmean",
            log_target=True,
        ).item()
    if difference <= limit:
        return
    if model.precision == "int8" and not exact:
        raise ModelNotSupportedError(
            f"this model loses too much precision in int8: {what} by {difference:.3g} from "
            f"float32 (allowed {limit}); set the dtype to float32"
        )
    raise ModelNotSupportedError(
        f"the engine does not compute this model's attention correctly: {what} by "
        f"{difference:.3g} from those of transformers; use a model of another family "
        "(Llama, Qwen2, Qwen3 and Mistral without sliding windows work)"
    )

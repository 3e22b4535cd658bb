"""A model with int8 weights, computed by our kernels alone.

Packing needs transformers, which loads and describes the model. What it gives is all that a step
needs, and is loaded from a file without transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import embedding

from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.torch.attention import StepBatch
from plato.engine.torch.kernels import (
    LayerWeights,
    NativeDecoder,
    NativeKernels,
    PackedLinear,
    PackedLowRank,
    PackedWeight,
)
from plato.engine.torch.kernels.native import MAX_TILE
from plato.engine.torch.linear import merged
from plato.engine.torch.low_rank import merged_change, without_change
from plato.engine.torch.model import LanguageModel, ModelShape
from plato.engine.torch.self_test import require_equal, self_test_tokens


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """All that a step needs of a model. Everything but the packed weights is float32."""

    shape: ModelShape
    embedding: torch.Tensor
    """[vocabulary, hidden size]."""
    frequencies: torch.Tensor
    """[head dimension / 2]: radians by which positions are rotated (arXiv 2104.09864)."""
    rotary_scale: float
    """Factor of cosines and sines."""
    attention_scale: float
    """Factor of the attention scores."""
    layers: Sequence[LayerWeights]
    norm: torch.Tensor
    head: PackedWeight
    head_bias: torch.Tensor | None
    expected: torch.Tensor
    """[1 or 2, tokens, vocabulary]: logits of the self-test's tokens in float32, by transformers:
    without the adapter and, if there is one, with it."""


class PackedModel(LanguageModel):
    """A causal language model with packed weights."""

    has_own_threads = True

    def __init__(
        self, weights: PackedWeights, tokenizer: TokenizerConfig, kernels: NativeKernels
    ) -> None:
        """Raises `ModelNotSupportedError` if the model loses too much precision."""
        super().__init__(weights.shape, tokenizer, torch.device("cpu"), "int8")
        self._kernels = kernels
        self._embedding = weights.embedding
        self._frequencies = weights.frequencies
        self._rotary_scale = weights.rotary_scale
        self._norm, self._eps = weights.norm, weights.layers[0].eps
        self._head, self._head_bias = weights.head, weights.head_bias
        self._decoder = NativeDecoder(
            kernels, weights.layers, dim=self.head_dim, scaling=weights.attention_scale
        )
        heads = weights.layers[0].output.weight.columns // self.head_dim
        self._tile = max(1, MAX_TILE // (heads // self.kv_heads))
        tokens = self_test_tokens(self.vocabulary, self.context_length)
        require_equal(self, tokens, weights.expected, exact=False)

    def _hidden(self, tokens: list[int], batch: StepBatch) -> torch.Tensor:
        hidden = embedding(torch.tensor(tokens), self._embedding)
        angles = torch.outer(batch.positions.float(), self._frequencies)
        angles = torch.cat([angles, angles], dim=-1)
        rotary = angles.cos() * self._rotary_scale, angles.sin() * self._rotary_scale
        assert batch.query_rows is not None
        self._decoder.compute(
            hidden,
            rotary,
            batch.new_slots,
            batch.query_rows,
            batch.pool.keys,
            batch.pool.values,
            batch.adapted,
        )
        return self._kernels.rms_norm(hidden, self._norm, self._eps)

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._kernels.linear(hidden, self._head, self._head_bias)


def pack(
    model: Any, shape: ModelShape, kernels: NativeKernels, expected: torch.Tensor
) -> PackedWeights:
    """Pack a model of transformers in float32, of a family that `can_replace` supports."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    return PackedWeights(
        shape=shape,
        embedding=decoder.embed_tokens.weight.detach(),
        frequencies=decoder.rotary_emb.inv_freq.float(),
        rotary_scale=decoder.rotary_emb.attention_scaling,
        attention_scale=decoder.layers[0].self_attn.scaling,
        layers=[_pack_layer(layer, kernels) for layer in decoder.layers],
        norm=decoder.norm.weight,
        head=kernels.pack(head.weight),
        head_bias=head.bias,
        expected=expected,
    )


def _pack_layer(layer: Any, kernels: NativeKernels) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    query_norm, key_norm = (
        (attention.q_norm.weight, attention.k_norm.weight)
        if hasattr(attention, "q_norm")
        else (None, None)
    )
    return LayerWeights(
        attention_norm=layer.input_layernorm.weight,
        mlp_norm=layer.post_attention_layernorm.weight,
        query_norm=query_norm,
        key_norm=key_norm,
        eps=layer.input_layernorm.variance_epsilon,
        qkv=_pack_linear(kernels, attention.q_proj, attention.k_proj, attention.v_proj),
        output=_pack_linear(kernels, attention.o_proj),
        gate_up=_pack_linear(kernels, mlp.gate_proj, mlp.up_proj),
        down=_pack_linear(kernels, mlp.down_proj),
    )


def _pack_linear(kernels: NativeKernels, *linears: nn.Module) -> PackedLinear:
    """Pack linear layers as one that computes their concatenated outputs."""
    weight, bias = merged(map(without_change, linears))
    change = merged_change(linears)
    packed = None if change is None else kernels.pack_low_rank(change)
    return PackedLinear(kernels.pack(weight), bias, packed)


def write_packed(weights: PackedWeights, file: Path) -> None:
    """Write packed weights to a file. Raises `OSError`."""
    torch.save(weights, file)


def read_packed(file: Path) -> PackedWeights:
    """Map a file of packed weights into memory. Raises all kinds of errors if it is damaged."""
    kinds: list[Callable[..., Any] | tuple[Callable[..., Any], str]]
    kinds = [
        PackedWeights,
        ModelShape,
        LayerWeights,
        PackedLinear,
        PackedLowRank,
        PackedWeight,
        frozenset,
    ]
    with torch.serialization.safe_globals(kinds):
        weights: PackedWeights = torch.load(file, mmap=True, weights_only=True)
    return weights

"""Parts of a decoder layer computed by our kernels, which replace transformers' modules.

transformers keeps the model's structure: embeddings, positions, residuals, the order of layers.
Norms, attention blocks and gated MLPs are replaced in families that are known to have just these
parts; the logits are compared with transformers' own when a model is loaded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from plato.engine.torch.attention import StepBatch
from plato.engine.torch.kernels import Kernels, LayerWeights, NativeDecoder, NativeKernels
from plato.engine.torch.kernels.native import MAX_DIM, MAX_TILE
from plato.engine.torch.linear import LinearFactory, merged

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types whose layers `replace_layers` supports."""


class Norm(nn.Module):
    """Root mean square norm."""

    def __init__(self, norm: Any, kernels: Kernels) -> None:
        super().__init__()
        self.weight = norm.weight
        self._eps: float = norm.variance_epsilon
        self._kernels = kernels

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalise over the last dimension."""
        return self._kernels.rms_norm(hidden, self.weight, self._eps)


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)), with gate and up in one product."""

    def __init__(self, mlp: Any, factory: LinearFactory, kernels: Kernels) -> None:
        super().__init__()
        self._gate_up = factory(*merged((mlp.gate_proj, mlp.up_proj)))
        self._down = factory(mlp.down_proj.weight, mlp.down_proj.bias)
        self._kernels = kernels

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[1, tokens, hidden size] to the same shape."""
        out: torch.Tensor = self._down(self._kernels.swiglu(self._gate_up(hidden[0])))
        return out[None]


class Attention(nn.Module):
    """Projections, rotary positions and attention over the KV pool."""

    def __init__(self, attention: Any, factory: LinearFactory, kernels: Kernels) -> None:
        super().__init__()
        self._layer: int = attention.layer_idx
        self._dim: int = attention.head_dim
        self._scaling: float = attention.scaling
        self._heads = attention.q_proj.out_features // self._dim
        self._kv_heads = attention.k_proj.out_features // self._dim
        self._qkv = factory(*merged((attention.q_proj, attention.k_proj, attention.v_proj)))
        self._output = factory(attention.o_proj.weight, attention.o_proj.bias)
        self._kernels = kernels
        self._norms: tuple[Norm, Norm] | None = None
        if hasattr(attention, "q_norm"):
            self._norms = (Norm(attention.q_norm, kernels), Norm(attention.k_norm, kernels))

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        *,
        step_batch: StepBatch,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """[1, tokens, hidden size] to the same shape; returns no attention weights."""
        heads, kv_heads, batch = self._heads, self._kv_heads, step_batch
        qkv: torch.Tensor = self._qkv(hidden_states[0]).view(-1, heads + 2 * kv_heads, self._dim)
        if self._norms is not None:
            qkv[:, :heads] = self._norms[0](qkv[:, :heads].contiguous())
            qkv[:, heads:-kv_heads] = self._norms[1](qkv[:, heads:-kv_heads].contiguous())
        cosine, sine = position_embeddings
        keys, values = batch.pool.keys[self._layer], batch.pool.values[self._layer]
        self._kernels.rotate_and_store(qkv, (cosine[0], sine[0]), batch.new_slots, keys, values)
        out = qkv.new_empty(len(qkv), heads, self._dim)
        assert batch.query_rows is not None
        self._kernels.attend(qkv, batch.query_rows, keys, values, self._scaling, out)
        projected: torch.Tensor = self._output(out.view(len(out), -1))
        return projected[None], None


class Int8Layers(nn.Module):
    """All layers of a decoder with int8 weights as one module."""

    def __init__(self, layers: nn.ModuleList, kernels: NativeKernels) -> None:
        super().__init__()
        attention: Any = layers[0].self_attn
        self._decoder = NativeDecoder(
            kernels,
            [_int8_weights(layer, kernels) for layer in layers],
            dim=attention.head_dim,
            scaling=attention.scaling,
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        *,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        step_batch: StepBatch,
        **_: Any,
    ) -> torch.Tensor:
        """[1, tokens, hidden size] to the same shape."""
        cosine, sine = position_embeddings
        batch = step_batch
        assert batch.query_rows is not None
        hidden = hidden_states.contiguous()
        self._decoder.compute(
            hidden[0],
            (cosine[0].contiguous(), sine[0].contiguous()),
            batch.new_slots,
            batch.query_rows,
            batch.pool.keys,
            batch.pool.values,
        )
        return hidden


def _int8_weights(layer: Any, kernels: NativeKernels) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    qkv, qkv_bias = merged((attention.q_proj, attention.k_proj, attention.v_proj))
    gate_up, gate_up_bias = merged((mlp.gate_proj, mlp.up_proj))
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
        qkv=kernels.pack(qkv),
        qkv_bias=qkv_bias,
        output=kernels.pack(attention.o_proj.weight),
        output_bias=attention.o_proj.bias,
        gate_up=kernels.pack(gate_up),
        gate_up_bias=gate_up_bias,
        down=kernels.pack(mlp.down_proj.weight),
        down_bias=mlp.down_proj.bias,
    )


def can_replace(model_type: str, head_dim: int, group: int, config: Any) -> bool:
    """Whether `replace_layers` supports this model's layers."""
    return (
        model_type in FAMILIES
        and head_dim <= MAX_DIM
        and group <= MAX_TILE
        and getattr(config, "hidden_act", "silu") == "silu"
    )


def replace_layers_int8(decoder: Any, kernels: NativeKernels) -> None:
    """Replace all layers of `decoder` with one module with int8 weights."""
    decoder.layers = nn.ModuleList([Int8Layers(decoder.layers, kernels)])
    decoder.norm = Norm(decoder.norm, kernels)


def replace_layers(decoder: Any, factory: LinearFactory, kernels: Kernels) -> None:
    """Replace transformers' modules with ours in every layer of `decoder`."""
    for layer in decoder.layers:
        layer.input_layernorm = Norm(layer.input_layernorm, kernels)
        layer.post_attention_layernorm = Norm(layer.post_attention_layernorm, kernels)
        layer.self_attn = Attention(layer.self_attn, factory, kernels)
        layer.mlp = GatedMLP(layer.mlp, factory, kernels)
    decoder.norm = Norm(decoder.norm, kernels)

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
from plato.engine.torch.kernels import Kernels
from plato.engine.torch.kernels.native import MAX_DIM, MAX_TILE
from plato.engine.torch.linear import LinearFactory
from plato.engine.torch.low_rank import merged_linear

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
        self._gate_up = merged_linear(factory, (mlp.gate_proj, mlp.up_proj))
        self._down = merged_linear(factory, (mlp.down_proj,))
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
        self._heads = attention.config.num_attention_heads
        self._kv_heads = attention.config.num_key_value_heads
        self._qkv = merged_linear(factory, (attention.q_proj, attention.k_proj, attention.v_proj))
        self._output = merged_linear(factory, (attention.o_proj,))
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


def can_replace(model_type: str, head_dim: int, group: int, config: Any) -> bool:
    """Whether `replace_layers` supports this model's layers."""
    return (
        model_type in FAMILIES
        and head_dim <= MAX_DIM
        and group <= MAX_TILE
        and getattr(config, "hidden_act", "silu") == "silu"
    )


def replace_layers(decoder: Any, factory: LinearFactory, kernels: Kernels) -> None:
    """Replace transformers' modules with ours in every layer of `decoder`."""
    for layer in decoder.layers:
        layer.input_layernorm = Norm(layer.input_layernorm, kernels)
        layer.post_attention_layernorm = Norm(layer.post_attention_layernorm, kernels)
        layer.self_attn = Attention(layer.self_attn, factory, kernels)
        layer.mlp = GatedMLP(layer.mlp, factory, kernels)
    decoder.norm = Norm(decoder.norm, kernels)

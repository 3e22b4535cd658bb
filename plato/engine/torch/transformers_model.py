"""A model that transformers computes, with our attention, adapter and, on a CPU, our layers.

Importing transformers' models takes 4 s; models with packed weights are loaded without this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AttentionInterface, AutoModelForCausalLM, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from plato.engine.errors import EngineError, ModelNotSupportedError
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.torch.attention import StepBatch, tree_attention
from plato.engine.torch.kernels import NativeKernels, new_kernels
from plato.engine.torch.kernels.native import MAX_TILE
from plato.engine.torch.layers import can_replace, replace_layers
from plato.engine.torch.linear import Int8Linear, float_linear, replace_linears
from plato.engine.torch.low_rank import AdaptedRows
from plato.engine.torch.model import LanguageModel, ModelShape, types_of
from plato.engine.torch.packed import PackedWeights, pack
from plato.engine.torch.self_test import require_equal, self_test_tokens

ATTENTION_NAME = "plato_tree"

# No mask function is registered under this name, so transformers passes no mask: masks are ours.
AttentionInterface.register(ATTENTION_NAME, tree_attention)


class TransformersModel(LanguageModel):
    """A causal language model of transformers, compared with itself after each replacement."""

    def __init__(
        self,
        folder: str,
        tokenizer: TokenizerConfig,
        device: torch.device,
        precision: str,
        adapter: Path | None = None,
    ) -> None:
        """Raises `EngineError` and `ModelNotSupportedError`."""
        dtype, _ = types_of(precision)
        if device.type == "cuda":
            # It prepares a plan for every new shape, and the longest sequence grows in every step:
            # 2 ms in each layer, 30 times as long as the attention itself.
            torch.backends.cuda.enable_cudnn_sdp(enabled=False)
        # Any, because transformers does not annotate what `Auto` classes return.
        self._model: Any = _load(folder, dtype).to(device).eval()
        self._config: Any = self._model.config.get_text_config()
        refuse_unsupported(self._config, self._model)
        super().__init__(self._shape(tokenizer), tokenizer, device, precision)
        self._test = self_test_tokens(self.vocabulary, self.context_length)
        expected = [self._own_logits()]
        self._adapted = AdaptedRows()
        if adapter is not None:
            # Late: importing PEFT takes a second, and few models have an adapter.
            from plato.engine.torch.adapter import PeftAdapter

            applied = PeftAdapter(self._model, adapter)
            expected.append(self._own_logits())
            applied.apply_to_rows(self._adapted)
        self._expected = torch.stack(expected)
        """Without the adapter and, if there is one, with it."""
        self._model.set_attn_implementation(ATTENTION_NAME)
        self._decoder = self._model.get_decoder()
        self._head = self._model.get_output_embeddings()
        require_equal(self, self._test, self._expected, exact=dtype is torch.float32)

    @torch.inference_mode()
    def pack(self, kernels: NativeKernels) -> PackedWeights | None:
        """Its weights packed in int8; `None` if our layers do not support this model."""
        if not self._has_our_layers():
            return None
        return pack(self._model, self._shape(self.tokenizer), kernels, self._expected)

    @torch.inference_mode()
    def replace_modules(self) -> None:
        """Replace transformers' layers with ours, or at least their linears, and test again."""
        kernels, factory = new_kernels(), float_linear()
        if self.precision == "int8":
            assert isinstance(kernels, NativeKernels)
            factory = partial(Int8Linear, kernels=kernels)
            replace_linears(self._decoder, factory)
        elif isinstance(kernels, NativeKernels) and self._has_our_layers():
            self._tile = max(1, MAX_TILE // self._group)
            replace_layers(self._decoder, factory, kernels)
        else:
            replace_linears(self._decoder, factory)
        self._head = factory(self._head.weight, self._head.bias)
        # Otherwise the model would keep the weights of its own head alive.
        self._model.set_output_embeddings(self._head)
        require_equal(self, self._test, self._expected, exact=self.precision != "int8")

    def _hidden(self, tokens: list[int], batch: StepBatch) -> torch.Tensor:
        self._adapted.count, self._adapted.rows = len(tokens), batch.adapted
        hidden: torch.Tensor = self._decoder(
            input_ids=torch.tensor([tokens], device=self.device),
            position_ids=batch.positions[None],
            use_cache=False,
            step_batch=batch,
        ).last_hidden_state[0]
        return hidden

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._head(hidden)
        return logits

    @property
    def _group(self) -> int:
        """Query heads of a KV head."""
        heads: int = self._config.num_attention_heads
        return heads // self.kv_heads

    def _has_our_layers(self) -> bool:
        return can_replace(self._config.model_type, self.head_dim, self._group, self._config)

    @torch.inference_mode()
    def _own_logits(self) -> torch.Tensor:
        """Logits [tokens, vocabulary] of the self-test's tokens, as transformers computes them."""
        ids = torch.tensor([self._test], device=self.device)
        logits: torch.Tensor = self._model(input_ids=ids, use_cache=False).logits[0].float()
        return logits

    def _shape(self, tokenizer: TokenizerConfig) -> ModelShape:
        config = self._config
        heads = config.num_attention_heads
        ends: set[int] = set()
        for value in (
            getattr(self._model.generation_config, "eos_token_id", None),
            tokenizer.token_id("eos_token"),
        ):
            if value is not None:
                ends.update([value] if isinstance(value, int) else value)
        return ModelShape(
            layers=config.num_hidden_layers,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            context_length=config.max_position_embeddings,
            vocabulary=config.vocab_size,
            end_tokens=frozenset(ends),
        )


def _load(folder: str, dtype: torch.dtype) -> Any:
    try:
        with _without_progress_bars():
            # Every family has eager attention; it is only the reference of the self-test.
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, attn_implementation="eager"
            )
    except Exception as error:
        raise EngineError(f"the model in {folder} cannot be loaded: {error}") from error
    return model


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def refuse_unsupported(config: PreTrainedConfig, model: Any) -> None:
    """Raise `ModelNotSupportedError` if the configuration has features that the engine lacks.

    transformers silently passes no mask to an attention that it does not know: sliding windows,
    soft caps and sinks would be missing.
    """

    def refuse(what: str) -> None:
        raise ModelNotSupportedError(
            f"the engine does not support {what}, which this {config.model_type} model needs; use "
            "another model"
        )

    if getattr(model.config, "is_encoder_decoder", False):
        refuse("encoder-decoder models")
    if not getattr(model, "_supports_attention_backend", False):
        refuse("attention that transformers does not let us replace")
    layer_types = set(getattr(config, "layer_types", None) or ())
    if layer_types - {"full_attention"}:
        refuse(f"layers of type {', '.join(sorted(layer_types - {'full_attention'}))}")
    window = getattr(config, "sliding_window", None)
    if window and not layer_types and getattr(config, "use_sliding_window", True):
        refuse("sliding-window attention")
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "logit_scale"):
        if getattr(config, name, None):
            refuse(name)
    scaling = getattr(config, "logits_scaling", None)
    if scaling not in (None, 1, 1.0):
        refuse("logits_scaling")
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default") if isinstance(rope, dict) else "default"
    if kind in ("dynamic", "longrope"):
        refuse(f"rope of type {kind}, which changes with the length")

"""Loading a model, and refusing what cannot be computed correctly."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from plato.engine.errors import EngineError, ModelNotSupportedError
from plato.engine.torch.attention import ATTENTION_NAME, Rows, StepBatch
from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.linear import replace_linears
from plato.engine.torch.pool import KVPool, bytes_per_token

SELF_TEST_TOKENS = 24
SELF_TEST_TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.35}
"""Largest difference of logits between our attention and transformers' own, at load."""


class LanguageModel:
    """A causal language model of transformers with attention over a KV pool."""

    def __init__(self, config: TorchEngineConfig) -> None:
        self.device = _device(config.device)
        self.dtype = _dtype(config.dtype, self.device)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(config.model_folder)
            # Eager is what every family has; it serves as the reference of the self-test only.
            model: Any = AutoModelForCausalLM.from_pretrained(
                config.model_folder, dtype=self.dtype, attn_implementation="eager"
            )
        except Exception as error:
            raise EngineError(
                f"the model in {config.model_folder} cannot be loaded: {error}"
            ) from error
        # Any: transformers' own annotations do not follow what `Auto` classes give.
        self._model: Any = model.to(self.device).eval()
        text_config = self._model.config.get_text_config()
        refuse_unsupported(text_config, self._model)
        heads = text_config.num_attention_heads
        self.layers: int = text_config.num_hidden_layers
        self.kv_heads: int = getattr(text_config, "num_key_value_heads", None) or heads
        self.head_dim: int = (
            getattr(text_config, "head_dim", None) or text_config.hidden_size // heads
        )
        self.context_length: int = text_config.max_position_embeddings
        self.vocabulary: int = text_config.vocab_size
        self.end_tokens = self._end_tokens()
        if self.device.type == "cpu" and self.dtype is torch.float32:
            replace_linears(self._model)
        self._decoder = self._model.get_decoder()
        self._head = self._model.get_output_embeddings()
        self._take_over_attention()

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV that one token takes."""
        return bytes_per_token(self.layers, self.kv_heads, self.head_dim, self.dtype)

    def new_pool(self, capacity: int) -> KVPool:
        """A pool of `capacity` tokens that fits this model."""
        return KVPool(
            layers=self.layers,
            heads=self.kv_heads,
            head_dim=self.head_dim,
            capacity=capacity,
            dtype=self.dtype,
            device=self.device,
        )

    def forward(
        self, pool: KVPool, tokens: list[int], rows: list[Rows], wanted: list[int]
    ) -> torch.Tensor:
        """Compute one step.

        `tokens` are the new tokens of all sequences in the order of `rows`; `wanted` are the
        indices into them whose logits are needed. Returns float32 [wanted, vocabulary].
        """
        batch = StepBatch(pool, rows, self.device)
        hidden = self._decoder(
            input_ids=torch.tensor([tokens], device=self.device),
            position_ids=batch.positions[None],
            use_cache=False,
            step_batch=batch,
        ).last_hidden_state[0]
        if not wanted:
            return torch.empty((0, self.vocabulary), device=self.device)
        logits: torch.Tensor = self._head(hidden[wanted]).float()
        return logits

    def _end_tokens(self) -> frozenset[int]:
        ends: set[int] = set()
        for source in (self._model.generation_config, self.tokenizer):
            value = getattr(source, "eos_token_id", None)
            if value is not None:
                ends.update([value] if isinstance(value, int) else value)
        return frozenset(ends)

    @torch.inference_mode()
    def _take_over_attention(self) -> None:
        """Replace the attention, and compare its logits with those of transformers' own.

        Families differ in more ways than a configuration tells, and one that computes something
        else must not be served.
        """
        count = min(SELF_TEST_TOKENS, self.context_length)
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(self.vocabulary, (count,), generator=generator).tolist()
        ids = torch.tensor([tokens], device=self.device)
        expected = self._model(input_ids=ids, use_cache=False).logits[0].float()

        self._model.set_attn_implementation(ATTENTION_NAME)
        pool = self.new_pool(count)
        slots = pool.allocate(count)
        half = count // 2
        first = self.forward(pool, tokens[:half], [Rows(slots[:half], half)], list(range(half)))
        rest = count - half - 1
        second = self.forward(pool, tokens[half:-1], [Rows(slots[:-1], rest)], list(range(rest)))
        third = self.forward(pool, tokens[-1:], [Rows(slots, 1)], [0])
        difference = (torch.cat([first, second, third]) - expected).abs().max().item()
        if not difference <= SELF_TEST_TOLERANCE[self.dtype]:
            raise ModelNotSupportedError(
                f"this model's attention does more than the engine computes: logits differ by "
                f"{difference:.3g} from transformers' own; use a model of another family "
                "(Llama, Qwen2, Qwen3 and Mistral without sliding windows work)"
            )


def refuse_unsupported(config: PreTrainedConfig, model: Any) -> None:
    """Raise `ModelNotSupportedError` for what a configuration says we would compute wrongly.

    transformers passes an unknown attention no mask, silently: sliding windows, soft caps and
    sinks would just be missing.
    """

    def refuse(what: str) -> None:
        raise ModelNotSupportedError(
            f"the engine does not support {what}, which {config.model_type} models with this "
            "configuration need; use another model"
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
            refuse(f"{name}")
    scaling = getattr(config, "logits_scaling", None)
    if scaling not in (None, 1, 1.0):
        refuse("logits_scaling")
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type", "default") if isinstance(rope, dict) else "default"
    if kind in ("dynamic", "longrope"):
        refuse(f"rope of type {kind}, which changes with the length")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise EngineError("device is cuda, but torch sees no GPU; set the device to cpu or auto")
    return torch.device(name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype

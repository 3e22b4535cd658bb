"""Loads a model, and refuses one that cannot be computed correctly."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn.functional import kl_div
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from plato.engine.errors import EngineError, ModelNotSupportedError
from plato.engine.torch.attention import ATTENTION_NAME, Rows, StepBatch
from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.kernels import NativeKernels, has_compiled_kernels, new_kernels
from plato.engine.torch.kernels.native import MAX_TILE
from plato.engine.torch.layers import can_replace, replace_layers, replace_layers_int8
from plato.engine.torch.linear import (
    Int8Linear,
    fastest_float_linear,
    replace_linears,
)
from plato.engine.torch.pool import KVPool, bytes_per_token

SELF_TEST_TOKENS = 24
SELF_TEST_TOLERANCE = 2e-3
"""Largest allowed difference between our logits and those of transformers in float32, at load."""
SELF_TEST_DIVERGENCE = 0.1
"""Largest allowed mean Kullback-Leibler divergence (nats per token) from transformers, at load, of
bfloat16 and int8. Their rounding moves single logits by any amount (by 0.44 in a random model of
8B), and the distribution by little: by 0.003 in the default model with int8. An incorrectly
computed part gives several."""


class LanguageModel:
    """A causal language model of transformers with attention over a KV pool."""

    def __init__(self, config: TorchEngineConfig) -> None:
        self.device = _device(config.device)
        if self.device.type == "cuda":
            # It prepares a plan for every new shape, and the longest sequence grows in every step:
            # 2 ms in each layer, 30 times as long as the attention itself.
            torch.backends.cuda.enable_cudnn_sdp(enabled=False)
        self.precision = choose_precision(config.dtype, self.device)
        """`float32`, `bfloat16` or `int8`."""
        int8 = self.precision == "int8"
        self.dtype: torch.dtype = torch.float32 if int8 else getattr(torch, self.precision)
        """Type of the activations; float32 with int8 weights."""
        self.kv_dtype = torch.bfloat16 if int8 else self.dtype
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(config.model_folder)
            # Every family has eager attention; it is only the reference of the self-test.
            model: Any = AutoModelForCausalLM.from_pretrained(
                config.model_folder, dtype=self.dtype, attn_implementation="eager"
            )
        except Exception as error:
            raise EngineError(
                f"the model in {config.model_folder} cannot be loaded: {error}"
            ) from error
        # Any, because transformers does not annotate what `Auto` classes return.
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
        self._tile: int | None = None
        """Rows that the native attention computes together; `None`: torch computes attention."""
        self.has_own_threads = False
        """Whether the layers are computed by threads other than torch's; see `use_one_thread`."""
        self._replace_and_check()

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
        batch = StepBatch(pool, rows, self.device, self._tile)
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
    def _replace_and_check(self) -> None:
        """Replace the attention, then the layers, and compare the logits with transformers' own.

        Model families differ in more ways than their configuration says, and a model that would
        be computed incorrectly must not be served.
        """
        count = min(SELF_TEST_TOKENS, self.context_length)
        generator = torch.Generator().manual_seed(0)
        tokens = torch.randint(self.vocabulary, (count,), generator=generator).tolist()
        ids = torch.tensor([tokens], device=self.device)
        expected = self._model(input_ids=ids, use_cache=False).logits[0].float()

        self._model.set_attn_implementation(ATTENTION_NAME)
        self._decoder = self._model.get_decoder()
        self._head = self._model.get_output_embeddings()
        self._compare(tokens, expected, exact=self.dtype is torch.float32)
        if self.device.type != "cpu" or self.dtype is not torch.float32:
            return
        self._replace_modules()
        self._compare(tokens, expected, exact=self.precision != "int8")

    def _replace_modules(self) -> None:
        """Replace transformers' layers with ours, or at least their linears."""
        kernels, factory = new_kernels(), fastest_float_linear()
        native = kernels if isinstance(kernels, NativeKernels) else None
        int8 = native if self.precision == "int8" else None
        if int8 is not None:
            factory = partial(Int8Linear, kernels=int8)
        config = self._model.config.get_text_config()
        group = config.num_attention_heads // self.kv_heads
        if native is not None and can_replace(config.model_type, self.head_dim, group, config):
            self._tile = max(1, MAX_TILE // group)
            if int8 is not None:
                replace_layers_int8(self._decoder, int8)
                self.has_own_threads = True
            else:
                replace_layers(self._decoder, factory, kernels)
        else:
            replace_linears(self._decoder, factory)
        self._head = factory(self._head.weight, self._head.bias)
        # Otherwise the model would keep the weights of its own head alive.
        self._model.set_output_embeddings(self._head)

    def _compare(self, tokens: list[int], expected: torch.Tensor, *, exact: bool) -> None:
        """Raise `ModelNotSupportedError` unless `tokens` get the `expected` logits.

        Without `exact` they may differ, if the distribution does not.
        """
        count = len(tokens)
        pool = self.new_pool(count, self.dtype if exact else None)
        slots = pool.allocate(count)
        half = count // 2
        first = self.forward(pool, tokens[:half], [Rows(slots[:half], half)], list(range(half)))
        rest = count - half - 1
        second = self.forward(pool, tokens[half:-1], [Rows(slots[:-1], rest)], list(range(rest)))
        third = self.forward(pool, tokens[-1:], [Rows(slots, 1)], [0])
        logits = torch.cat([first, second, third])
        if exact:
            what = "logits differ"
            difference = (logits - expected).abs().max().item()
            limit = SELF_TEST_TOLERANCE
        else:
            what = "their distribution diverges"
            difference = kl_div(
                logits.log_softmax(-1),
                expected.log_softmax(-1),
                reduction="batchmean",
                log_target=True,
            ).item()
            limit = SELF_TEST_DIVERGENCE
        if difference <= limit:
            return
        if self.precision == "int8" and not exact:
            raise ModelNotSupportedError(
                f"this model loses too much precision in int8: {what} by {difference:.3g} from "
                f"float32 (allowed {limit}); set the dtype to float32"
            )
        raise ModelNotSupportedError(
            f"the engine does not compute this model's attention correctly: {what} by "
            f"{difference:.3g} from those of transformers; use a model of another family "
            "(Llama, Qwen2, Qwen3 and Mistral without sliding windows work)"
        )


def use_one_thread() -> None:
    """Make torch compute in the calling thread only.

    For models with threads of their own: torch computes little beside them, and its threads spin
    for a while after each operation and compete for cores (at width 8, a step takes 17.5 ms
    instead of 20).
    """
    torch.set_num_threads(1)


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


def _device(name: str) -> torch.device:
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

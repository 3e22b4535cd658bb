"""Models that the engine computes right are loaded, others are refused with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AttentionInterface,
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from plato.engine import EngineError, ModelNotSupportedError
from plato.engine.torch import TorchEngineConfig
from plato.engine.torch.attention import Rows, tree_attention
from plato.engine.torch.load import load_model
from plato.engine.torch.model import LanguageModel
from plato.engine.torch.transformers_model import ATTENTION_NAME
from tests.engine.conftest import TINY, MakeCore
from tests.engine.helpers import Stream, ask, assert_greedy, run_together, some_tokens

VOCABULARY = 49_152


def save(config: Any, folder: Path, tokenizer: Any) -> str:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim == 1:  # Biases would be 0 and norms 1, and prove nothing.
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def load(folder: str) -> LanguageModel:
    return load_model(TorchEngineConfig(folder, device="cpu", dtype="float32"))


@pytest.mark.parametrize(
    "config",
    [
        Qwen2Config(vocab_size=VOCABULARY, **TINY),
        Qwen3Config(vocab_size=VOCABULARY, head_dim=32, **TINY),
        MistralConfig(vocab_size=VOCABULARY, sliding_window=None, **TINY),
        LlamaConfig(
            vocab_size=VOCABULARY,
            rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0},
            **TINY,
        ),
        # Multi-head attention: no query heads share a KV head.
        LlamaConfig(vocab_size=VOCABULARY, **{**TINY, "num_key_value_heads": 4}),
    ],
    ids=["qwen2", "qwen3", "mistral", "linear rope", "multi-head"],
)
def test_other_families_equal_generate(
    config: Any, tmp_path: Path, tokenizer: Any, make_core: MakeCore
) -> None:
    folder = save(config, tmp_path, tokenizer)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    core = make_core(load(folder), prefill_chunk=16)
    shared = some_tokens(20)
    prompts = [shared + some_tokens(length, length) for length in (3, 12, 30)]
    streams = run_together(core, [ask(prompt) for prompt in prompts])
    for prompt, stream in zip(prompts, streams, strict=True):
        assert_greedy(reference, prompt, stream.tokens)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_torch_computes_the_same_as_the_compiled_kernels(
    dtype: str, tiny_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TorchEngineConfig(tiny_folder, str(tmp_path), device="cpu", dtype=dtype)
    native = load_model(config)
    # As for a family whose layers we do not replace. The products of int8 are still in C: there
    # is no int8 without them.
    monkeypatch.setattr("plato.engine.torch.transformers_model.can_replace", lambda *_: False)
    shutil.rmtree(tmp_path)
    portable = load_model(config)
    assert (type(native) is type(portable)) == (dtype == "float32")
    tokens = list(some_tokens(30))
    logits = []
    for model in (native, portable):
        pool = model.new_pool(30)
        slots = pool.allocate(30)
        with torch.inference_mode():
            model.forward(pool, tokens[:20], [Rows(slots[:20], 20)], [])
            logits.append(model.forward(pool, tokens[20:], [Rows(slots, 10)], list(range(10))))
    torch.testing.assert_close(*logits, rtol=0, atol=1e-4 if dtype == "float32" else 0.02)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Gemma2Config(vocab_size=VOCABULARY, head_dim=16, **TINY), "sliding_attention"),
        (
            Gemma2Config(
                vocab_size=VOCABULARY, head_dim=16, layer_types=["full_attention"] * 2, **TINY
            ),
            "softcapping",
        ),
        (MistralConfig(vocab_size=VOCABULARY, sliding_window=64, **TINY), "sliding"),
        (
            Qwen2Config(
                vocab_size=VOCABULARY,
                use_sliding_window=True,
                sliding_window=64,
                max_window_layers=1,
                **TINY,
            ),
            "sliding_attention",
        ),
        (
            LlamaConfig(
                vocab_size=VOCABULARY,
                rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0},
                **TINY,
            ),
            "rope of type dynamic",
        ),
    ],
    ids=["gemma2", "soft caps", "mistral window", "qwen2 window", "dynamic rope"],
)
def test_what_would_be_wrong_is_refused(
    config: Any, reason: str, tmp_path: Path, tokenizer: Any
) -> None:
    folder = save(config, tmp_path, tokenizer)
    with pytest.raises(ModelNotSupportedError, match=f"{reason}.*use another model"):
        load(folder)


def test_what_only_the_logits_tell_is_refused(
    tiny_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if a family did something in its attention that no configuration mentions.
    def biased(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        output, _ = tree_attention(*args, **kwargs)
        return output * 1.01, None

    monkeypatch.setitem(AttentionInterface._global_mapping, ATTENTION_NAME, biased)
    with pytest.raises(ModelNotSupportedError, match="logits differ"):
        load(tiny_folder)


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=f"{tmp_path} cannot be loaded"):
        load(str(tmp_path))


def test_a_gpu_that_is_not_there_says_so(tiny_folder: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EngineError, match="set the device to cpu or auto"):
        load_model(TorchEngineConfig(tiny_folder, device="cuda"))


def test_a_slot_that_was_never_written_does_not_matter(
    make_core: MakeCore, tiny_reference: Any
) -> None:
    # Memory is uninitialised: padding must not read slots that were never written.
    core = make_core()
    for layer in (*core.pool.keys, *core.pool.values):
        layer.fill_(float("nan"))
    core.pool.allocate(1)  # slot 0 is allocated, but not computed yet
    prompts = [some_tokens(length, length) for length in (5, 30)]
    streams = []
    for prompt in prompts:
        streams.append(Stream())
        core.add(ask(prompt), streams[-1])
    while core.has_work:
        core.step()
    for prompt, stream in zip(prompts, streams, strict=True):
        assert_greedy(tiny_reference, prompt, stream.tokens)

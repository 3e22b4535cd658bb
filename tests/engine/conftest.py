"""A tiny model for behaviour, the real small one for exactness; both loaded once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.engine.torch.core import EngineCore
from plato.engine.torch.load import load_model
from plato.engine.torch.model import LanguageModel
from tests.clock import Clock

TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # Large weights: with the usual ones a random model repeats one token for ever.
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
"""Keyword arguments of any Llama-like configuration of transformers."""

MakeCore = Callable[..., EngineCore]


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Keeps operations this small from waiting for each other's threads on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer(model_folder: str) -> Any:
    return AutoTokenizer.from_pretrained(model_folder)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> str:
    """A random Llama of two layers whose greedy output varies, with the real tokenizer."""
    folder = str(tmp_path_factory.mktemp("tiny"))
    save_tiny(folder, tokenizer)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: str) -> LanguageModel:
    return load_model(TorchEngineConfig(tiny_folder, device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def tiny_reference(tiny_folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def small(model_folder: str) -> LanguageModel:
    return load_model(TorchEngineConfig(model_folder, device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def small_reference(model_folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_core(tiny: LanguageModel, clock: Clock) -> MakeCore:
    """Builds the loop body over a loaded model, with a KV budget in tokens."""

    def make(model: LanguageModel = tiny, kv_tokens: int = 2000, **settings: Any) -> EngineCore:
        config = TorchEngineConfig(
            "unused", kv_budget_bytes=kv_tokens * model.kv_bytes_per_token, **settings
        )
        return EngineCore(model, config, "epoch", clock)

    return make


@pytest.fixture(scope="session")
def shared_engine(tiny_folder: str) -> TorchEngine:
    # It starts no event loop of its own, so tests with loops of their own can share it. Its
    # thread is a daemon: nothing is left to close.
    return TorchEngine(tiny_config(tiny_folder))


@pytest.fixture
async def engine(shared_engine: TorchEngine) -> AsyncIterator[TorchEngine]:
    """The tiny model behind the `Engine` protocol; every test leaves it idle and sound."""
    yield shared_engine
    assert shared_engine.stats().live == ()
    await shared_engine.inspect(EngineCore.check_integrity)


def save_tiny(folder: str, tokenizer: Any, **fields: Any) -> None:
    """Write a random Llama into a folder; `fields` are of its configuration."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, **{**TINY, **fields}
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_config(folder: str, **settings: Any) -> TorchEngineConfig:
    settings = {"kv_budget_bytes": 4 << 20, "threads": 1, "name": "tiny", **settings}
    return TorchEngineConfig(folder, device="cpu", dtype="float32", **settings)

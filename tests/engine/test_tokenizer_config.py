"""Tokenizers are read as transformers reads them, without transformers."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import AutoTokenizer

from plato.engine.tokenizer_config import TokenizerConfig, context_length, end_tokens
from plato.errors import ModelError
from plato.prompting import Tokenizer

TEXTS = ("How do I bake bread?\n\n1. Flour", "Ünïcødé 😀 12,345", "  <|im_end|> <tool> </s>x")
TEMPLATE = "{% for m in messages %}{{ bos_token + m.role + m.content + eos_token }}{% endfor %}"


def folder_of(tmp_path: Path, **config: Any) -> Path:
    """A small model's folder; `config` is its tokenizer_config.json."""
    vocabulary = {
        letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    backend = Backend(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(["<s>", "</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    given = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(given))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return tmp_path


def assert_like_transformers(folder: Path | str) -> Tokenizer:
    hf = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer = Tokenizer.load(str(folder))
    assert tokenizer.config.names == hf.special_tokens_map
    assert tokenizer.size == len(hf)
    added = {number for number, token in hf.added_tokens_decoder.items() if token.special}
    assert tokenizer.special == added
    for text in TEXTS:
        ids = hf.encode(text, add_special_tokens=False)
        assert list(tokenizer.markup(text)) == ids
        assert tokenizer.decode(ids, special=True) == hf.decode(ids)
        assert tokenizer.decode(ids) == hf.decode(ids, skip_special_tokens=True)
    if hf.chat_template:
        assert tokenizer.config.chat_template == hf.get_chat_template()
    return tokenizer


def test_the_default_model(model_folder: str) -> None:
    assert_like_transformers(model_folder)


@pytest.mark.parametrize(
    "config",
    [
        {"bos_token": "<s>", "eos_token": "</s>"},
        {
            "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": False},
            "chat_template": TEMPLATE,
        },
        {"eos_token": "<new>", "bos_token": "<s>"},
        {
            "eos_token": "</s>",
            "chat_template": [
                {"name": "default", "template": TEMPLATE},
                {"name": "tool_use", "template": "{{ tools }}"},
            ],
        },
        {
            "eos_token": "</s>",
            "added_tokens_decoder": {
                "258": {"content": "<tool>", "special": False},
                "259": {"content": "<|im_end|>", "special": True},
            },
        },
    ],
)
def test_what_a_folder_can_say(tmp_path: Path, config: dict[str, Any]) -> None:
    assert_like_transformers(folder_of(tmp_path, **config))


def test_files_beside_the_configuration(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, chat_template="old")
    (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>", "bos_token": "<s>"}')
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    assert_like_transformers(folder)


def test_without_a_name_the_models_configuration_says_what_ends_a_text(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "generation_config.json").write_text('{"eos_token_id": [257, 256]}')
    assert Tokenizer.load(str(folder)).end_tokens == {257}


@pytest.mark.parametrize(
    ("configured", "ends"), [(None, {257}), (3, {3, 257}), ([3, 4], {3, 4, 257}), ([257], {257})]
)
def test_a_turn_ends_at_the_tokens_of_the_model_and_of_the_tokenizer(
    tmp_path: Path, configured: object, ends: set[int]
) -> None:
    folder = folder_of(tmp_path, eos_token="</s>")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": configured}))
    assert end_tokens(str(folder), TokenizerConfig.load(str(folder))) == ends


def test_several_templates_without_a_default_are_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, chat_template=[{"name": "rag", "template": "{{ x }}"}])
    with pytest.raises(ModelError, match="several, rag"):
        Tokenizer.load(str(folder))


def test_an_invalid_template_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, chat_template="{% for %}")
    with pytest.raises(ModelError, match="not valid"):
        Tokenizer.load(str(folder))


def test_without_tokenizer_json_transformers_converts_and_the_log_says_so(
    model_folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in ("tokenizer_config.json", "config.json", "chat_template.jinja"):
        shutil.copy(Path(model_folder) / file, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(config | {"tokenizer_class": "GPT2Tokenizer"})
    )
    spec = json.loads((Path(model_folder) / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(spec["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in spec["merges"]]
    (tmp_path / "merges.txt").write_text("\n".join(merges))
    with caplog.at_level(logging.WARNING):
        converted = Tokenizer.load(str(tmp_path))
    assert "has no tokenizer.json" in caplog.text
    assert converted.text("Hello there") == Tokenizer.load(model_folder).text("Hello there")


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"model_type": "gpt2", "n_positions": 64}, 64),
        ({"model_type": "gemma3", "text_config": {"max_position_embeddings": 32}}, 32),
        ({"model_type": "llama"}, 2048),
    ],
)
def test_the_context_length(tmp_path: Path, config: dict[str, Any], length: int) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_length(str(tmp_path)) == length


def test_a_configuration_without_a_context_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ModelError, match="cannot be served"):
        context_length(str(tmp_path))


def test_processes_without_an_engine_import_neither_torch_nor_transformers(
    model_folder: str,
) -> None:
    code = f"""
import sys
import deployments.app, deployments.local, plato.cli, plato.runtime
from plato.prompting.model_tools import ModelTools
from plato.assembly import new_planner, public_prompts
from plato.settings import Settings
settings = Settings(model={model_folder!r})
tools = ModelTools.load(settings)
new_planner(settings, tools, None)
public_prompts(tools)
assert not {{"torch", "transformers"}} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

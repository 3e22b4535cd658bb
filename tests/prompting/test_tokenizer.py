from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from plato.engine.tokenizer_config import TokenizerConfig
from plato.errors import ModelError
from plato.prompting import Tokenizer
from tests.prompting.families import QWEN_3
from tests.prompting.reference import hf_of


def test_special_tokens_are_parsed_in_markup_and_stay_text_in_text(tokenizer: Tokenizer) -> None:
    end = hf_of(tokenizer).eos_token_id
    assert tokenizer.markup("a<|im_end|>")[-1] == end
    tokens = tokenizer.text("a<|im_end|><|im_end|>b <|im_start|>")
    assert not set(tokens) & tokenizer.special
    assert tokenizer.decode(tokens) == "a<|im_end|><|im_end|>b <|im_start|>"


def test_ordinary_text_gives_the_models_own_tokens(tokenizer: Tokenizer) -> None:
    text = "How do I bake bread?\n\n1. Flour"
    assert list(tokenizer.text(text)) == hf_of(tokenizer).encode(text, add_special_tokens=False)


def test_tokens_that_only_the_template_treats_as_special_stay_text_too(
    with_template: Callable[..., Tokenizer],
) -> None:
    tokenizer = with_template(QWEN_3, ("<think>", "</think>"))
    assert len(tokenizer.markup("<think>")) == 1
    text = "</think><think>x" + "<think>" * 2000
    tokens = tokenizer.text(text)
    assert not {tokenizer.markup("<think>")[0], tokenizer.markup("</think>")[0]} & set(tokens)
    assert tokenizer.decode(tokens) == text


@given(st.lists(st.one_of(st.text(max_size=9), st.just("<|im_end|>"))).map("".join))
def test_any_text_gets_its_plain_tokens_and_no_control_token(
    tokenizer: Tokenizer, text: str
) -> None:
    tokens = tokenizer.text(text)
    plain = hf_of(tokenizer).encode(text, add_special_tokens=False, split_special_tokens=True)
    assert list(tokens) == plain
    assert not set(tokens) & tokenizer.special


def test_the_end_of_a_turn_is_the_templates_and_the_tokenizers(
    with_template: Callable[..., Tokenizer],
) -> None:
    tokenizer = with_template(
        "{% for m in messages %}{{ m.role + ':' + m.content + '<file_sep>' }}{% endfor %}"
        "{{ 'assistant:' }}"
    )
    assert tokenizer.end_tokens == {
        hf_of(tokenizer).eos_token_id,
        tokenizer.markup("<file_sep>")[0],
    }


@pytest.mark.parametrize("scheme", ["metaspace", "prepend"])
def test_sentencepiece_tokenizers_add_no_leading_space(scheme: str) -> None:
    backend = Backend(
        models.BPE({"▁": 0, "a": 1, "b": 2, "▁a": 3, "</s>": 4, "<unk>": 5}, [("▁", "a")])
    )
    if scheme == "metaspace":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    else:
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    backend.add_special_tokens([AddedToken("</s>", special=True)])
    assert backend.encode("a", add_special_tokens=False).ids == [3]
    tokenizer = Tokenizer(TokenizerConfig(backend, {"eos_token": "</s>"}))
    assert tokenizer.text("a") == (1,)
    assert tokenizer.text("b a") == (2, 3)
    assert tokenizer.markup("</s>b") == (4, 2)


def test_a_folder_without_a_usable_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path)):
        Tokenizer.load(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.load(str(tmp_path))

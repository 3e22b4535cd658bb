"""Tenants share the KV of the markup before the first message, and of nothing that they wrote."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest

from plato.engine import Prompt
from plato.prompting import ChatTemplate, NodeText, Tokenizer, TranscriptLayout
from plato.runs import Message, Node, PlanGraph
from tests.prompting import families
from tests.prompting.runs import DIAMOND, QUESTION, prompts, up_to

NOON = datetime(2024, 3, 5, 12)
OWN_SYSTEM = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n"
)
DATED = "<|im_start|>system\nToday Date: 05 Mar 2024\n"
FAMILIES = [
    (None, f"{OWN_SYSTEM}<|im_start|>user\n", "<|im_start|>system\n"),
    (families.LLAMA_3, f"{DATED}<|im_end|><|im_start|>user\n", DATED),
    (families.QWEN_3, "<|im_start|>user\n", "<|im_start|>system\n"),
    (families.GEMMA, "<|endoftext|><|im_start|>user\n", "<|endoftext|><|im_start|>user\n"),
    (families.MISTRAL, "<|endoftext|><|im_start|>", "<|endoftext|><|im_start|>"),
    (families.BARE, "", ""),
]
"""Templates (`None`: the default model's own), and what they write before a question alone and
before a caller's system prompt."""

LayoutOf = Callable[[str | None], TranscriptLayout]


@pytest.fixture
def layout_of(tokenizer: Tokenizer, with_template: Callable[..., Tokenizer]) -> LayoutOf:
    def make(family: str | None) -> TranscriptLayout:
        used = tokenizer if family is None else with_template(family)
        return TranscriptLayout(used, ChatTemplate(used, today=NOON), 8192)

    return make


@pytest.mark.parametrize(("family", "before_question", "before_system"), FAMILIES)
def test_only_markup_is_public(
    tokenizer: Tokenizer,
    layout_of: LayoutOf,
    texts: dict[int, NodeText],
    family: str | None,
    before_question: str,
    before_system: str,
) -> None:
    layout = layout_of(family)
    (prefix,) = layout.public_prefixes()
    assert tokenizer.decode(prefix.tokens, special=True) == before_question
    assert prefix.public_tokens == len(prefix)
    for node in prompts(layout.start(QUESTION, "t"), DIAMOND, texts).values():
        assert node.prompt.hashes[: len(prefix.hashes)] == prefix.hashes
        assert node.prompt.public_tokens == len(prefix)
    talk = (Message("system", "Speak like a plumber."), *QUESTION)
    for node in prompts(layout.start(talk, "t"), DIAMOND, texts).values():
        public = node.prompt.tokens[: node.prompt.public_tokens]
        assert tokenizer.decode(public, special=True) == before_system


@pytest.mark.parametrize("family", [family for family, *_ in FAMILIES])
@pytest.mark.parametrize(
    "roles",
    [
        ("user",),
        ("system", "user"),
        ("user", "assistant", "user"),
        ("system", "system", "user", "assistant", "system", "user"),
    ],
)
def test_what_is_public_does_not_depend_on_the_caller(
    tokenizer: Tokenizer, layout_of: LayoutOf, family: str | None, roles: tuple[str, ...]
) -> None:
    layout = layout_of(family)

    def asked(word: str, tenant: str) -> Prompt:
        talk = tuple(Message(role, word) for role in roles)
        graph = PlanGraph([Node(1, word), Node(2, word, (1,))])
        finished = {1: NodeText(1, tokenizer.text(word), word)}
        return layout.start(talk, tenant).node_prompt(graph, 2, finished, up_to(64)).prompt

    one, same, other = asked("plumber", "one"), asked("plumber", "two"), asked("pastry", "two")
    public = sum(segment.public for segment in one.segments)
    for prompt in (same, other):
        assert prompt.segments[:public] == one.segments[:public]
        assert prompt.hashes[:public] == one.hashes[:public]
        assert not any(segment.public for segment in prompt.segments[public:])
        assert not set(prompt.hashes[public:]) & set(one.hashes[public:])
    assert same.tokens == one.tokens

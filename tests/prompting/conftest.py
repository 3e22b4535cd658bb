"""The layout of the default model, and its tokenizer with chat templates of other families."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from plato.prompting import ChatTemplate, NodeText, Tokenizer, TranscriptLayout
from tests.prompting.runs import TITLES, written


@pytest.fixture(scope="session")
def layout(tokenizer: Tokenizer, template: ChatTemplate) -> TranscriptLayout:
    return TranscriptLayout(tokenizer, template, 8192)


@pytest.fixture(scope="session")
def with_template(tokenizer: Tokenizer) -> Callable[..., Tokenizer]:
    """The default model's tokenizer with another chat template, and other tokens if given."""

    @cache
    def make(chat_template: str | None, tokens: tuple[str, ...] = ()) -> Tokenizer:
        backend = copy.deepcopy(tokenizer.config.backend)
        backend.add_tokens(list(tokens))
        return Tokenizer(replace(tokenizer.config, backend=backend, chat_template=chat_template))

    return make


@pytest.fixture(scope="session")
def texts(tokenizer: Tokenizer) -> dict[int, NodeText]:
    """What the nodes of a plan say."""
    return {number: written(tokenizer, number) for number in range(1, len(TITLES) + 1)}

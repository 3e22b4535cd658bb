from __future__ import annotations

from typing import Any

import llguidance.hf
import pytest

from plato.prompting import ChatTemplate, Tokenizer
from tests.prompting.reference import hf_of


@pytest.fixture(scope="session")
def tokenizer(model_folder: str) -> Tokenizer:
    return Tokenizer.load(model_folder)


@pytest.fixture(scope="session")
def template(tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate(tokenizer)


@pytest.fixture(scope="session")
def matching(tokenizer: Tokenizer) -> Any:
    """llguidance's view of the tokenizer."""
    return llguidance.hf.from_tokenizer(hf_of(tokenizer))

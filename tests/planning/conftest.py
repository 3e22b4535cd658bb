from __future__ import annotations

from typing import Any

import llguidance.hf
import pytest

from plato.prompting import Tokenizer
from tests.prompting.reference import hf_of


@pytest.fixture(scope="session")
def matching(tokenizer: Tokenizer) -> Any:
    """llguidance's view of the tokenizer."""
    return llguidance.hf.from_tokenizer(hf_of(tokenizer))

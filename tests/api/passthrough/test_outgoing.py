"""Requests as upstreams get them."""

from __future__ import annotations

from typing import Any

import pytest

from plato.api.passthrough.outgoing import Passed

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"model": "x" * 40, "messages": [{"role": "user", "content": "x" * 40}]}, 10),
        ({"messages": [{"content": [{"type": "text", "text": "x" * 40}, IMAGE]}]}, 10),
        ({"instructions": "x" * 20, "input": [{"content": [{"text": "x" * 20}]}]}, 10),
        ({"input": [{"type": "function_call_output", "output": "x" * 40}]}, 10),
        ({"prompt": ["x" * 20, "x" * 20]}, 10),
        ({"prompt": [7] * 10}, 10),
        ({"messages": None, "input": 0.5}, 0),
    ],
)
def test_the_tokens_of_a_prompt_are_estimated_from_its_text(
    fields: dict[str, Any], tokens: int
) -> None:
    assert Passed("/v1/chat/completions", fields, "me", "id").prompt_tokens == tokens

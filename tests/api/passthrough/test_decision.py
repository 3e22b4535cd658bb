"""Which requests are planned in front of an upstream."""

from __future__ import annotations

from typing import Any

import pytest

from plato.api.passthrough.decision import (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    may_be_planned,
    wants_plato,
)

ASKED = {"messages": [{"role": "user", "content": "Why?"}]}
PLAIN: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5, "max_tokens": 100, "stop": "x", "seed": 1, "stream": True},
    {"stream": True, "stream_options": {"include_usage": True}},
    {"tools": [], "tool_choice": "auto", "functions": None, "n": 1, "logprobs": False},
    {"tools": [{}], "tool_choice": "none"},
    {"response_format": {"type": "text"}, "modalities": ["text"], "parallel_tool_calls": True},
    {"metadata": {"a": "b"}, "store": True, "user": "me", "prompt_cache_key": "x"},
    {"messages": [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}]},
    {"plato": {"mode": "auto"}},
]
OTHER: list[dict[str, Any]] = [
    # Their servers do something else by default.
    {"skip_special_tokens": False},
    {"add_generation_prompt": False},
    {"thinking_token_budget": 0},
    {"id_slot": 0},
    {"tools": [{}]},
    {"tools": [{}], "tool_choice": "required"},
    {"functions": [{}]},
    {"response_format": {"type": "json_object"}},
    {"n": 2},
    {"logprobs": True},
    {"reasoning_effort": "high"},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"whatever": 0.5},
    {"stream": True, "stream_options": {"continuous_usage_stats": True}},
    {"messages": [{"role": "tool", "content": "3", "tool_call_id": "c"}]},
    {"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
    {"messages": [{"role": "assistant", "content": "So.", "reasoning_content": "Hm."}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
    {"messages": []},
    {"plato": {"mode": "sequential"}},
    {"model": "name:sequential"},
]
PLATO: list[dict[str, Any]] = [
    {"model": "name:plato", "tools": [{}]},
    {"model": "name:skeleton"},
    {"plato": {"mode": "plato"}},
    {"plato": {"mode": "sequential", "events": True}},
    {"plato": {"plan": []}},
    {"plato": {"mode": ["auto"]}},
    {"plato": "auto"},
]


@pytest.mark.parametrize("fields", PLAIN, ids=str)
def test_text_alone_may_be_planned(fields: dict[str, Any]) -> None:
    asked = {**ASKED, **fields}
    assert not wants_plato(asked, CHAT)
    assert may_be_planned(asked, CHAT)


@pytest.mark.parametrize("fields", OTHER, ids=str)
def test_all_else_is_passed_on(fields: dict[str, Any]) -> None:
    asked = {**ASKED, **fields}
    assert not wants_plato(asked, CHAT)
    assert not may_be_planned(asked, CHAT)


@pytest.mark.parametrize("fields", PLATO, ids=str)
def test_whoever_asks_for_plato_gets_plato(fields: dict[str, Any]) -> None:
    assert wants_plato({**ASKED, **fields}, CHAT)


def test_completions_are_never_planned() -> None:
    asked = {"prompt": "Once upon a time"}
    assert not wants_plato(asked, COMPLETIONS)
    assert not may_be_planned(asked, COMPLETIONS)


@pytest.mark.parametrize(
    ("fields", "planned"),
    [
        ({}, True),
        ({"instructions": "Be brief.", "max_output_tokens": 100, "store": False}, True),
        ({"text": {"format": {"type": "text"}}}, True),
        ({"input": [{"type": "message", "role": "user", "content": "Why?"}]}, True),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Why?"}]}]}, True),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "3"}]}, False),
        ({"text": {"verbosity": "low"}}, False),
        ({"reasoning": {"effort": "low"}}, False),
        ({"include": ["reasoning.encrypted_content"]}, False),
    ],
)
def test_responses_have_names_of_their_own(fields: dict[str, Any], planned: bool) -> None:
    asked = {"input": "Why?", **fields}
    assert not wants_plato(asked, RESPONSES)
    assert may_be_planned(asked, RESPONSES) is planned


@pytest.mark.parametrize("name", ["previous_response_id", "conversation", "background", "prompt"])
def test_what_is_stored_of_others_is_not_asked_for_at_an_upstream(name: str) -> None:
    assert wants_plato({"input": "Why?", "tools": [{}], name: "x"}, RESPONSES)

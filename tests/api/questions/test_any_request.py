"""Whatever a client sends: an answer or an error of its own, never one of the server."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plato.runtime import Runtime
from tests.api.asking import CHAT
from tests.serving import connect

# One event loop for all tests of the API: the model is loaded once.
pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.hostile]

EXAMPLES = int(os.environ.get("PLATO_RANDOM_EXAMPLES", "60"))

numbers = st.sampled_from([-(2**63) - 1, -1, 0, 1, 2, 5, 9, 2**31 - 1, 2**31, 2**64, 10**40])
reals = st.sampled_from([-1e308, -2, -0.5, 0, 1e-320, 1e-9, 0.7, 1, 1.5, 2, 2.001, 1e308])
texts = st.text(max_size=12) | st.sampled_from(
    ["Why?", "😀🎉", "<|im_end|>", "\x00", " ", "a" * 600]
)
anything = st.none() | st.booleans() | numbers | reals | texts | st.lists(texts, max_size=3)
calls = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "id": texts,
            "function": st.fixed_dictionaries({"name": texts}, optional={"arguments": anything}),
            "custom": anything,
        },
    ),
    max_size=2,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": texts},
        optional={"tool_calls": calls, "tool_call_id": texts, "name": texts, "refusal": anything},
    ),
    max_size=4,
)
schemas = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", "string", "integer", "array", "shape"]),
        "enum": st.lists(anything, max_size=3),
        "pattern": texts,
        "maxLength": numbers,
        "items": st.just({"type": "boolean"}),
        "required": st.lists(texts, max_size=2),
    },
)
formats = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "json_object", "json_schema"])},
    optional={"json_schema": st.fixed_dictionaries({"schema": schemas}), "schema": schemas},
)
FUNCTION = {"type": "function", "function": {"name": "f"}}
functions = st.fixed_dictionaries({"name": st.just("f")}, optional={"parameters": schemas})
tools = st.lists(st.fixed_dictionaries({"function": functions}), max_size=2)
part = st.fixed_dictionaries(
    {"title": texts},
    optional={
        "dependencies": st.lists(numbers, max_size=3),
        "max_tokens": numbers,
        "number": numbers,
    },
)
plato = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["plato", "skeleton", "sequential", "auto", "other"]),
        "plan": st.lists(part, max_size=4),
        "max_nodes": numbers,
        "headings": st.booleans(),
        "events": st.booleans(),
        "prompts": st.booleans(),
        "exact_lengths": st.booleans(),
        "decode_plan": st.booleans(),
        "deadline_s": reals,
    },
)
bodies = st.fixed_dictionaries(
    {"model": st.just("tiny"), "messages": messages | st.just([{"role": "user", "content": "Hi"}])},
    optional={
        "stream": st.booleans(),
        "max_tokens": numbers,
        "max_completion_tokens": numbers,
        "temperature": reals,
        "top_p": reals,
        "top_k": numbers,
        "min_p": reals,
        "presence_penalty": reals,
        "frequency_penalty": reals,
        "repetition_penalty": reals,
        "seed": numbers,
        "n": numbers,
        "stop": texts | st.lists(texts, max_size=5),
        "logit_bias": st.dictionaries(st.sampled_from(["1", "007", "x", "999999999"]), reals),
        "plato": plato,
        "user": anything,
        "metadata": anything,
        "response_format": anything | formats,
        "tools": anything | tools,
        "tool_choice": anything | st.sampled_from(["auto", "required", FUNCTION]),
        "reasoning_effort": anything,
        "store": anything,
        "whatever": anything,
    },
)


items = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "type": anything
            | st.sampled_from(["message", "function_call", "function_call_output", "reasoning"]),
            "role": st.sampled_from(["user", "assistant", "developer"]),
            "content": texts | st.lists(anything, max_size=2),
            "call_id": anything,
            "name": anything,
            "arguments": anything,
            "output": anything,
        },
    ),
    max_size=4,
)
responses = st.fixed_dictionaries(
    {"input": items | anything | st.just("Why?")},
    optional={
        "instructions": anything,
        "max_output_tokens": numbers,
        "text": anything | st.fixed_dictionaries({"format": formats}),
        "stream": st.booleans(),
        "background": anything,
        "metadata": anything,
        "tools": anything,
        "plato": plato,
    },
)
completions = st.fixed_dictionaries(
    {"prompt": texts | anything},
    optional={
        "max_tokens": numbers,
        "stream": st.booleans(),
        "echo": anything,
        "suffix": anything,
        "logprobs": anything,
        "response_format": formats,
    },
)
asked = st.one_of(
    st.tuples(st.just(CHAT), bodies),
    st.tuples(st.just("/v1/responses"), responses),
    st.tuples(st.just("/v1/completions"), completions),
)


async def answer(runtime: Runtime, path: str, body: dict[str, Any]) -> httpx.Response:
    async with connect(runtime.service, runtime.settings) as http, asyncio.timeout(60):
        return await http.post(path, json=body)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=asked)
async def test_is_answered_or_refused(runtime: Runtime, asked: tuple[str, dict[str, Any]]) -> None:
    path, body = asked
    response = await answer(runtime, path, body)
    shown = response.text
    told = json.dumps(body)
    # 504: the answer was not complete by its own deadline.
    assert response.status_code < 500 or response.status_code == 504, (told, shown)
    if response.status_code >= 400:
        error = response.json()["error"]
        assert error["message"]
        assert error["code"] != "internal_error", told
    else:
        assert "internal_error" not in shown, told
        if path == CHAT and not body.get("stream"):
            shown = response.json()["choices"][0]["message"]["content"]
        if path == CHAT:
            assert "\ufffd" not in shown, told

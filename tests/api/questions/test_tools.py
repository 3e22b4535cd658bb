"""Tool calls that a request demands: JSON under the function's schema, on a real runtime."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema
import pytest
from openai.types.responses.response_stream_event import ResponseStreamEvent
from pydantic import TypeAdapter

from plato.api.questions.requests import parse_request
from plato.api.questions.tools import NO_ARGUMENTS
from plato.errors import InvalidRequestError
from plato.scheduling.plan_phase import CALL
from tests.api.asking import CHAT, QUESTION, chunks_of, server_sent

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
RESPONSES = "/v1/responses"
SCHEMA = {
    "type": "object",
    "properties": {"salty": {"type": "boolean"}, "sea": {"enum": ["red", "dead"]}},
    "required": ["salty", "sea"],
    "additionalProperties": False,
}
FUNCTION = {"name": "note", "description": "Notes a sea.", "parameters": SCHEMA}
OTHER: dict[str, Any] = {"type": "function", "function": {"name": "other"}}
TOOL: dict[str, Any] = {"type": "function", "function": FUNCTION}
NAMED = {"type": "function", "function": {"name": "note"}}
FLAT = {"type": "function", **FUNCTION}


def call(**fields: Any) -> dict[str, Any]:
    return {"messages": QUESTION, "tools": [OTHER, TOOL], "tool_choice": NAMED, **fields}


def response_call(**fields: Any) -> dict[str, Any]:
    return {"input": "Is it salty?", "tools": [FLAT], "tool_choice": "required", **fields}


@pytest.mark.parametrize("model", ["tiny", "tiny:plato"])
async def test_the_arguments_of_a_call_fit_its_schema(http: httpx.AsyncClient, model: str) -> None:
    completion = (await http.post(CHAT, json=call(model=model))).json()
    (choice,) = completion["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (called,) = choice["message"]["tool_calls"]
    assert (called["type"], called["function"]["name"]) == ("function", "note")
    jsonschema.validate(json.loads(called["function"]["arguments"]), SCHEMA)
    plato = completion["plato"]
    assert (plato["mode"], plato["reason"], plato["ignored"]) == ("sequential", CALL, [])
    assert (await http.get(f"{CHAT}/{completion['id']}")).json() == completion


async def test_a_call_streams(http: httpx.AsyncClient) -> None:
    whole = (await http.post(CHAT, json=call())).json()["choices"][0]["message"]["tool_calls"]
    chunks = chunks_of(await http.post(CHAT, json=call(stream=True)))
    opening, *pieces, closing = [chunk["choices"][0] for chunk in chunks]
    (begun,) = opening["delta"]["tool_calls"]
    assert (begun["index"], begun["type"], begun["function"]["name"]) == (0, "function", "note")
    texts = [piece["delta"]["tool_calls"][0]["function"]["arguments"] for piece in pieces]
    assert "".join(texts) == whole[0]["function"]["arguments"]
    assert closing["finish_reason"] == "tool_calls"


async def test_a_call_that_is_cut_says_so(http: httpx.AsyncClient) -> None:
    (choice,) = (await http.post(CHAT, json=call(max_tokens=2))).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"].startswith("{")


async def test_a_response_has_the_call_as_its_item(http: httpx.AsyncClient) -> None:
    response = (await http.post(RESPONSES, json=response_call())).json()
    (item,) = response["output"]
    assert (response["status"], item["type"], item["name"]) == (
        "completed",
        "function_call",
        "note",
    )
    jsonschema.validate(json.loads(item["arguments"]), SCHEMA)
    assert (await http.get(f"{RESPONSES}/{response['id']}")).json() == response


async def test_a_streamed_response_has_openais_events_of_a_call(http: httpx.AsyncClient) -> None:
    streamed = await http.post(RESPONSES, json=response_call(stream=True))
    events = [json.loads(event["data"]) for event in server_sent(streamed)]
    for event in events:
        EVENT.validate_python(event)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:3] == ["created", "in_progress", "output_item.added"]
    assert set(kinds[3:-3]) == {"function_call_arguments.delta"}
    assert kinds[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]
    arguments = "".join(event.get("delta", "") for event in events)
    assert events[-3]["arguments"] == events[-2]["item"]["arguments"] == arguments
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    "choice",
    [
        NAMED,
        {"type": "function", "name": "note"},
        {"type": "allowed_tools", "mode": "required", "tools": [NAMED]},
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}},
    ],
)
async def test_one_function_can_be_demanded_in_several_ways(choice: Any) -> None:
    function = parse_request(json.dumps(call(tool_choice=choice))).demanded_function
    assert function is not None
    assert (function.name, function.parameters) == ("note", SCHEMA)


async def test_required_demands_the_only_function() -> None:
    only = call(tools=[OTHER, {"type": "custom", "custom": {"name": "x"}}], tool_choice="required")
    function = parse_request(json.dumps(only)).demanded_function
    assert function is not None
    assert (function.name, function.parameters) == ("other", NO_ARGUMENTS)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"tool_choice": "required"}, "tool_choice", "name one"),
        ({"tools": [OTHER]}, "tool_choice", "not in 'tools'"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice", "only calls"),
        ({"tools": [{"type": "function", "name": "note", "parameters": 5}]}, "tools", "an object"),
        ({"plato": {"mode": "plato"}}, "plato.mode", "demands a call"),
    ],
)
async def test_a_call_that_cannot_be_made_is_refused(
    fields: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        parse_request(json.dumps(call(**fields)))
    assert caught.value.param == param


async def test_parameters_that_cannot_be_enforced_are_refused(http: httpx.AsyncClient) -> None:
    broken = {"type": "function", "function": {"name": "note", "parameters": {"type": "shape"}}}
    refused = await http.post(CHAT, json=call(tools=[broken]))
    error = refused.json()["error"]
    assert (refused.status_code, error["param"]) == (httpx.codes.BAD_REQUEST, "tools")
    assert "Invalid type: shape" in error["message"]

"""`/v1/responses` over a real runtime, through the official `openai` client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.responses import Response, ToolChoiceFunction
from openai.types.responses.response_stream_event import ResponseStreamEvent
from pydantic import TypeAdapter

from plato.runtime import Runtime
from tests.api.asking import CHAT, PLAN, QUESTION, RUNS, server_sent
from tests.api.test_app import BrokenService
from tests.serving import connect

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")

PATH = "/v1/responses"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TEXT = "Why is the sea salty?"
PLATO = {"plato": {"mode": "plato", "plan": PLAN}}
SEA = {"type": "function", "name": "sea", "parameters": {"enum": ["red", "dead"]}}
LONG = {"mode": "sequential", "exact_lengths": True}


def asked(**fields: Any) -> dict[str, Any]:
    return {"input": TEXT, **PLATO, **fields}


@pytest_asyncio.fixture(loop_scope="package")
async def client(http: httpx.AsyncClient) -> AsyncIterator[AsyncOpenAI]:
    base = "http://plato/v1"
    # Its runs are those of its key.
    http.headers["Authorization"] = "Bearer any"
    async with AsyncOpenAI(base_url=base, api_key="any", http_client=http, max_retries=0) as made:
        yield made


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each of which is one of OpenAI's."""
    events = [json.loads(event["data"]) for event in server_sent(response)]
    for event in events:
        EVENT.validate_python(event)
    return events


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event.get("delta", "") for event in events)


async def test_a_question_is_answered(client: AsyncOpenAI, http: httpx.AsyncClient) -> None:
    response = await client.responses.create(input=TEXT, metadata={"ticket": "7"}, extra_body=PLATO)
    assert (response.object, response.status, response.model) == ("response", "incomplete", "tiny")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.metadata == {"ticket": "7"}
    assert response.usage is not None
    assert response.usage.output_tokens == 12
    whole = (await http.post(CHAT, json={"messages": QUESTION, **PLATO})).json()
    assert response.output_text == whole["choices"][0]["message"]["content"]
    assert response.usage.input_tokens == whole["usage"]["prompt_tokens"]
    again = await client.responses.retrieve(response.id)
    assert again.to_dict() == response.to_dict()
    run = (await http.get(f"{RUNS}/{response.id}")).json()
    assert run["answer"] == response.output_text


async def test_a_stream_has_openais_events(http: httpx.AsyncClient) -> None:
    events = events_of(await http.post(PATH, json=asked(stream=True)))
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert kinds[-4:] == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "incomplete",
    ]
    numbers = [event["sequence_number"] for event in events]
    assert numbers == sorted(set(numbers))
    text = text_of(events)
    assert events[-4]["text"] == events[-2]["item"]["content"][0]["text"] == text
    response = events[-1]["response"]
    assert response == (await http.get(f"{PATH}/{response['id']}")).json()
    assert text == (await http.post(PATH, json=asked())).json()["output"][0]["content"][0]["text"]


async def test_the_clients_own_stream_ends_with_the_response(client: AsyncOpenAI) -> None:
    form: Any = {"type": "json_schema", "name": "sea", "schema": {"enum": ["red", "dead"]}}
    async with client.responses.stream(model="tiny", input=TEXT, text={"format": form}) as stream:
        async for _ in stream:
            pass
        assert (await stream.get_final_response()).output_text in ('"red"', '"dead"')


async def test_an_answer_goes_on_in_the_background(client: AsyncOpenAI) -> None:
    response = await client.responses.create(input=TEXT, background=True, extra_body=PLATO)
    assert (response.status, response.output) == ("in_progress", [])
    events = [event async for event in await client.responses.retrieve(response.id, stream=True)]
    assert events[-1].type == "response.incomplete"
    ended = await client.responses.retrieve(response.id)
    assert (ended.status, ended.output_text) == ("incomplete", text_of(_dumped(events)))


def _dumped(events: list[Any]) -> list[dict[str, Any]]:
    return [event.to_dict() for event in events]


async def test_a_stream_in_the_background_resumes_behind_any_character(
    http: httpx.AsyncClient,
) -> None:
    events = events_of(await http.post(PATH, json=asked(stream=True, background=True)))
    location = f"{PATH}/{events[0]['response']['id']}"
    text = text_of(events)
    for after in range(events[-1]["sequence_number"]):
        params = {"stream": "true", "starting_after": str(after)}
        rest = events_of(await http.get(location, params=params))
        assert all(event["sequence_number"] > after for event in rest)
        assert rest[-1] == events[-1]
        assert text_of(rest) == text[max(0, after - 3) :]


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 50])
async def test_a_number_that_is_none_is_refused(http: httpx.AsyncClient, after: str) -> None:
    params = {"stream": "true", "starting_after": after}
    refused = await http.get(f"{PATH}/resp_x", params=params)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "starting_after")


async def test_a_response_in_the_background_is_cancelled(
    client: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    options = {"plato": LONG, "max_tokens": 1500}
    response = await client.responses.create(input=TEXT, background=True, extra_body=options)
    cancelled = await client.responses.cancel(response.id)
    assert cancelled.status == "cancelled"
    events = events_of(await http.get(f"{PATH}/{response.id}", params={"stream": "true"}))
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["status"] == "cancelled"
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve("resp_none")


async def test_an_error_in_mid_stream_is_a_failed_response(runtime: Runtime) -> None:
    broken = BrokenService(runtime.service, KeyError("/etc/secret"), begun=True)
    async with connect(broken, runtime.settings) as http:
        events = events_of(await http.post(PATH, json=asked(stream=True)))
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == "server_error"
    assert "secret" not in json.dumps(events)


async def test_a_conversation_with_calls_is_read_as_text(http: httpx.AsyncClient) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "depth", "arguments": "{}"}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "How deep?"}]},
        {"type": "reasoning", "id": "r1", "summary": []},
        {"type": "message", "role": "assistant", "content": "Let me see.", "id": "m1"},
        call,
        {**call, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "11 km"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "11 km"},
    ]
    body = {"input": items, "instructions": "Be brief.", "max_output_tokens": 4}
    body["plato"] = {"mode": "sequential", "prompts": True}
    response = (await http.post(PATH, json=body)).json()
    prompt = response["plato"]["graph"]["nodes"][0]["prompt"]
    parts = ["Be brief.", "How deep?", "Let me see.\n\nCall depth({})\n\nCall depth({})"]
    parts.append("Result of depth:\n11 km\n\nResult of depth:\n11 km")
    assert [part for part in parts if part not in prompt] == []


async def test_an_answer_under_a_schema(http: httpx.AsyncClient) -> None:
    schema = {
        "type": "object",
        "properties": {"salty": {"type": "boolean"}},
        "required": ["salty"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "name": "sea", "strict": True, "schema": schema}
    answered = await http.post(PATH, json={"input": TEXT, "text": {"format": form}})
    response = Response.model_validate(answered.json())
    assert response.status == "completed"
    jsonschema.validate(json.loads(response.output_text), schema)


async def test_hints_are_reported(http: httpx.AsyncClient) -> None:
    body = asked(
        reasoning={"effort": "low"},
        text={"verbosity": "low"},
        tools=[{"type": "web_search"}],
        include=["reasoning.encrypted_content"],
        truncation="auto",
    )
    response = (await http.post(PATH, json=body)).json()
    assert response["plato"]["ignored"] == [
        "include",
        "reasoning",
        "text.verbosity",
        "tools",
        "truncation",
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": " "}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input"),
        (
            {"input": [{"type": "function_call", "call_id": "c"}]},
            "input.0.tool_calls.0.function.name",
        ),
        (
            {"input": [{"role": "robot", "content": "x"}], "instructions": "Be brief."},
            "input.0.role",
        ),
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
        ({"conversation": "conv_x"}, "conversation"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        (
            {"text": {"format": {"type": "json_schema", "schema": {"type": "shape"}}}, "plato": {}},
            "text.format",
        ),
        ({"text": {"format": {"type": "json_object"}}}, "plato.mode"),
        ({"plato": {"speed": 1}}, "plato.speed"),
        ({"stream": True, "plato": {"events": True}}, "plato.events"),
        ({"input": [{"type": ["message"]}]}, "input"),
        ({"input": [5]}, "input"),
    ],
)
async def test_what_cannot_be_honoured_is_refused(
    http: httpx.AsyncClient, fields: dict[str, Any], param: str
) -> None:
    refused = await http.post(PATH, json=asked(**fields))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert "'messages" not in refused.json()["error"]["message"]


@pytest.mark.parametrize("way", [{}, {"stream": True}, {"background": True}])
@pytest.mark.parametrize(
    "given",
    ["word " * 3000, [{"role": "user", "content": TEXT}] * 2000],
    ids=["a long text", "many items"],
)
async def test_what_does_not_fit_is_refused_by_the_callers_name_for_it(
    http: httpx.AsyncClient, given: object, way: dict[str, bool]
) -> None:
    refused = await http.post(PATH, json={"input": given, **way})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "context_length_exceeded")
    assert error["param"] == "input"


async def test_a_response_says_which_call_was_demanded(client: AsyncOpenAI) -> None:
    asked: Any = {"input": TEXT, "tools": [SEA], "tool_choice": "required"}
    response = await client.responses.create(**asked)
    assert response.tool_choice == ToolChoiceFunction(type="function", name="sea")
    (tool,) = response.tools
    assert (tool.type, tool.name) == ("function", "sea")
    assert (await client.responses.retrieve(response.id)).to_dict() == response.to_dict()


@pytest.mark.parametrize("background", [True, False])
async def test_a_response_says_whether_it_is_in_the_background(
    client: AsyncOpenAI, background: bool
) -> None:
    response = await client.responses.create(input=TEXT, background=background, extra_body=PLATO)
    assert response.background is background
    assert (await client.responses.retrieve(response.id)).background is background

"""Everything that people do with the official `openai` client: an answer, or an error in words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import httpx
import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from pydantic import BaseModel, SecretStr

from plato.runtime import Runtime
from tests.api.asking import QUESTION
from tests.serving import connect

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")

MESSAGES: Any = QUESTION
TOOLS: Any = [{"type": "function", "function": {"name": "depth", "parameters": {"type": "object"}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "depth", "arguments": "{}"}}


class Sea(BaseModel):
    """What is asked for."""

    name: Literal["red", "dead"]
    salty: bool


@pytest_asyncio.fixture(loop_scope="package")
async def client(http: httpx.AsyncClient) -> AsyncIterator[AsyncOpenAI]:
    base = "http://plato/v1"
    async with AsyncOpenAI(base_url=base, api_key="any", http_client=http, max_retries=0) as made:
        yield made


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert names[0] == "tiny"
    assert (await client.models.retrieve("tiny:plato")).id == "tiny:plato"


async def test_an_answer_is_parsed(client: AsyncOpenAI) -> None:
    parsed = await client.chat.completions.parse(
        model="tiny", messages=MESSAGES, response_format=Sea
    )
    assert isinstance(parsed.choices[0].message.parsed, Sea)


async def test_a_parsed_answer_is_streamed(client: AsyncOpenAI) -> None:
    asked = client.chat.completions.stream(model="tiny", messages=MESSAGES, response_format=Sea)
    async with asked as stream:
        final = await stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Sea)


async def test_parts_that_the_deployment_cuts_are_no_error(client: AsyncOpenAI) -> None:
    plan = {"mode": "plato", "plan": [{"title": "Salt"}, {"title": "Depth"}]}
    # The client looks for cuts where there may be something to parse.
    tool: Any = {"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}
    asked = client.chat.completions.stream(
        model="tiny", messages=MESSAGES, tools=[tool], extra_body={"plato": plan}
    )
    async with asked as stream:
        final: Any = await stream.get_final_completion()
    assert final.choices[0].finish_reason == "stop"


async def test_an_answer_that_the_caller_cuts_is_one(client: AsyncOpenAI) -> None:
    asked = client.chat.completions.stream(
        model="tiny", messages=MESSAGES, max_tokens=2, response_format=Sea
    )
    async with asked as stream:
        with pytest.raises(openai.LengthFinishReasonError):
            await stream.get_final_completion()


async def test_a_response_is_parsed(client: AsyncOpenAI) -> None:
    response = await client.responses.parse(model="tiny", input="Which sea?", text_format=Sea)
    assert isinstance(response.output_parsed, Sea)


@pytest.mark.parametrize("choice", [openai.omit, "auto", "none"])
async def test_tools_may_be_offered(client: AsyncOpenAI, choice: Any) -> None:
    answer: Any = await client.chat.completions.create(
        model="tiny", messages=MESSAGES, tools=TOOLS, tool_choice=choice, max_tokens=4
    )
    assert answer.choices[0].message.content
    assert answer.choices[0].message.tool_calls is None
    assert answer.plato["ignored"] == ["tools"]


async def test_the_call_of_one_function_may_be_demanded(client: AsyncOpenAI) -> None:
    sea: Any = openai.pydantic_function_tool(Sea)
    parsed = await client.chat.completions.parse(
        model="tiny", messages=MESSAGES, tools=[sea], tool_choice="required"
    )
    (called,) = parsed.choices[0].message.tool_calls or ()
    assert isinstance(called.function.parsed_arguments, Sea)
    asked = client.chat.completions.stream(
        model="tiny", messages=MESSAGES, tools=[sea], tool_choice="required"
    )
    async with asked as stream:
        final = await stream.get_final_completion()
    (streamed,) = final.choices[0].message.tool_calls or ()
    assert streamed.function == called.function


async def test_the_call_of_one_of_several_cannot_be_demanded(client: AsyncOpenAI) -> None:
    other: Any = {"type": "function", "function": {"name": "other"}}
    with pytest.raises(openai.BadRequestError, match="name one, or send 'auto'"):
        await client.chat.completions.create(
            model="tiny", messages=MESSAGES, tools=[*TOOLS, other], tool_choice="required"
        )


async def test_an_agent_goes_on_after_a_call(client: AsyncOpenAI) -> None:
    history: Any = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "11 km"},
    ]
    answer = await client.chat.completions.create(
        model="tiny", messages=history, tools=TOOLS, max_tokens=4
    )
    assert answer.choices[0].message.content


async def test_a_text_is_continued(client: AsyncOpenAI) -> None:
    completion = await client.completions.create(model="tiny", prompt="The sea", max_tokens=4)
    assert completion.choices[0].text


async def test_hints_are_no_errors(client: AsyncOpenAI) -> None:
    answer: Any = await client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        reasoning_effort="low",
        verbosity="low",
        prompt_cache_key="k",
        service_tier="auto",
        max_completion_tokens=4,
    )
    assert answer.plato["ignored"] == [
        "prompt_cache_key",
        "reasoning_effort",
        "service_tier",
        "verbosity",
    ]


async def test_what_is_missing_is_told(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="this server has"):
        await client.embeddings.create(model="tiny", input="x")
    with pytest.raises(openai.NotFoundError, match="use 'tiny'"):
        await client.chat.completions.create(model="gpt", messages=MESSAGES)


async def test_a_wrong_key_is_an_authentication_error(runtime: Runtime) -> None:
    settings = runtime.settings.model_copy(update={"api_keys": SecretStr("shop=0123456789abcdef")})
    async with (
        connect(runtime.service, settings) as http,
        AsyncOpenAI(base_url="http://plato/v1", api_key="wrong", http_client=http) as client,
    ):
        with pytest.raises(openai.AuthenticationError, match="not valid"):
            await client.models.list()
        right = client.with_options(api_key="0123456789abcdef")
        assert [model.id async for model in right.models.list()]

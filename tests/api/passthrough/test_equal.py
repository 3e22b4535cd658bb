"""What the official client gets through Plato is what it gets from the upstream itself."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from plato.metrics.table import ANSWER_SECONDS, FIRST_TEXT_SECONDS, PASSED_ON
from tests.api.passthrough.fronts import MESSAGES, NAME, UPSTREAM_KEY, Front
from tests.engine.upstream.server import MODEL

TOOL = {"type": "function", "function": {"name": "depth", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "sea", "schema": {"type": "object"}}}
IMAGE = "data:image/png;base64," + "iVBORw0KGgo" * 20000
SEEN: Any = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": IMAGE}},
        ],
    }
]
CALLED: Any = [
    *MESSAGES,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "depth", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "c", "content": "3.6 km"},
]
PASSED: dict[str, dict[str, Any]] = {
    "tools": {"tools": [TOOL]},
    "a forced tool": {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "depth"}},
    },
    "the result of a tool": {"messages": CALLED},
    "structured output": {"response_format": SCHEMA},
    "log probabilities": {"logprobs": True, "top_logprobs": 2},
    "two answers": {"n": 2},
    "an image": {"messages": SEEN},
    "thinking": {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}},
    "a parameter that nobody here knows": {"extra_body": {"min_tokens": 3, "ratio": 1e-7}},
    "values that Plato refuses": {"temperature": 3.5, "stop": ["a", "b", "c", "d", "e"]},
    "a sequential answer": {"extra_body": {"plato": {"mode": "sequential"}}},
    "the upstream's own name of the model": {"model": MODEL},
    "a sequential answer by name": {"model": f"{NAME}:sequential"},
}


@pytest.fixture(params=PASSED.values(), ids=PASSED)
def asked(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"messages": MESSAGES, **request.param}


async def both(front: Front, **asked: Any) -> list[Any]:
    """A completion, or the chunks of one, from the upstream and through Plato."""
    answers = []
    for direct, model in ((True, MODEL), (False, asked.pop("model", NAME))):
        async with front.client(direct=direct) as client:
            answer = await client.chat.completions.create(model=model, **asked)
            if asked.get("stream"):
                answers.append([chunk.model_dump() async for chunk in answer])
            else:
                answers.append(answer.model_dump())
    return answers


async def test_an_answer(front: Front, asked: dict[str, Any]) -> None:
    direct, through = await both(front, **asked)
    assert through == direct
    (_, sent), (_, passed) = front.upstream.passed
    assert passed.pop("cache_salt")
    sent.pop("plato", None)
    assert passed == sent


async def test_a_stream(front: Front, asked: dict[str, Any]) -> None:
    asked |= {"stream": True, "stream_options": {"include_usage": True}}
    direct, through = await both(front, **asked)
    assert through == direct
    assert through[-1]["usage"]["total_tokens"] == 15


async def test_a_stream_is_the_same_to_the_byte(front: Front) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "stream": True, "tools": [TOOL], "seed": 2**70}
    async with front.http() as http:
        through = await http.post("/v1/chat/completions", json=body)
        direct = await http.post(f"{front.upstream.http.url}/v1/chat/completions", json=body)
    assert through.content == direct.content
    assert through.headers["content-type"] == direct.headers["content-type"]


@pytest.mark.parametrize("status", [400, 403, 422, 429, 500, 503])
async def test_an_error_has_its_status_and_its_words(front: Front, status: int) -> None:
    front.upstream.status = status
    # More often than the breaker forgives: an error is an answer.
    for _ in range(4):
        errors = []
        for direct in (True, False):
            async with front.client(direct=direct) as client:
                with pytest.raises(openai.APIStatusError) as raised:
                    await client.chat.completions.create(
                        model=MODEL, messages=MESSAGES, n=2, stream=status == 429
                    )
            errors.append(raised.value)
        direct, through = errors
        assert through.status_code == direct.status_code == status
        assert through.body == direct.body
        assert through.response.headers["retry-after"] == "7"
        assert "set-cookie" not in through.response.headers
        assert "x-internal" not in through.response.headers


async def test_other_endpoints(front: Front) -> None:
    async with front.client() as through, front.client(direct=True) as direct:

        async def embed(client: AsyncOpenAI) -> Any:
            return await client.embeddings.create(
                model="embedder", input="salt", encoding_format="float"
            )

        async def respond(client: AsyncOpenAI, model: str) -> Any:
            return await client.responses.create(
                model=model, input="Why?", reasoning={"effort": "low"}
            )

        assert await embed(through) == await embed(direct)
        assert await respond(through, NAME) == await respond(direct, MODEL)
        models = [body["model"] for _, body in front.upstream.passed]
        assert models == ["embedder", "embedder", MODEL, MODEL]
    async with front.http() as http:
        lacking = await http.post("/v1/score", json={"model": "x"})
    assert (lacking.status_code, lacking.json()) == (404, {"detail": "Not Found"})


async def test_a_text_is_continued_by_the_upstream(front: Front) -> None:
    async with front.http() as http:
        body = {"model": NAME, "prompt": [1, 2], "cache_salt": "of another", "stream": True}
        await http.post("/v1/completions", json=body)
    passed = front.upstream.bodies[-1]
    assert (passed["model"], passed["prompt"]) == (MODEL, [1, 2])
    assert passed["cache_salt"] not in ("of another", None)


async def test_keys_salts_and_ids_are_those_of_this_server(front: Front) -> None:
    body = {"messages": MESSAGES, "n": 2, "cache_salt": "of another"}
    ids = []
    async with front.http() as http:
        headers = {"Cookie": "a=b", "X-Request-Id": "mine"}
        for key in ("mine", "mine", "yours", None):
            http.headers.pop("Authorization", None)
            if key is not None:
                http.headers["Authorization"] = f"Bearer {key}"
            response = await http.post("/v1/chat/completions", json=body, headers=headers)
            ids.append(response.headers["x-request-id"])
    mine, again, yours, nobody = [body.get("cache_salt") for _, body in front.upstream.passed]
    assert mine == again != yours
    assert None is nobody
    assert "of another" not in (mine, yours)
    assert [headers["x-request-id"] for headers in front.upstream.headers] == ids
    assert len(set(ids)) == 4
    for headers in front.upstream.headers:
        assert headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert "cookie" not in headers


async def test_a_refused_key_is_the_operators_matter(front: Front) -> None:
    front.upstream.status = 401
    async with front.client() as client:
        with pytest.raises(openai.InternalServerError, match="upstream_api_key") as raised:
            await client.chat.completions.create(model=MODEL, messages=MESSAGES, n=2)
    assert raised.value.status_code == httpx.codes.SERVICE_UNAVAILABLE


async def test_answers_are_counted_and_timed(front: Front) -> None:
    recorder = front.recorder

    def counts() -> tuple[float, float, int, int]:
        timed = [
            len(recorder.values(metric, mode="sequential"))
            for metric in (FIRST_TEXT_SECONDS, ANSWER_SECONDS)
        ]
        outcomes = [recorder.total(PASSED_ON, outcome=name) for name in ("answered", "refused")]
        return outcomes[0], outcomes[1], timed[0], timed[1]

    before = counts()
    async with front.http() as http:
        for status in (200, 400):
            front.upstream.status = status
            await http.post("/v1/chat/completions", json={"messages": MESSAGES, "n": 2})
    assert counts() == tuple(count + 1 for count in before)

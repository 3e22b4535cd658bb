"""Long conversations are refused at once if nothing could fit them; nobody waits for others."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from plato.api.questions.requests import parse_request
from plato.errors import InvalidRequestError
from plato.runs import RunRequest
from plato.runtime import Runtime
from tests.api.asking import CHAT, RUNS, short
from tests.serving import connect

# One event loop for all tests of the API: the model is loaded once.
pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.hostile]

GAP_S = 0.5
"""Longest block of the event loop; before, these requests blocked it for seconds."""


def turns(count: int, content: str = "a") -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": content} for number in range(count - 1)] + [
        {"role": "user", "content": content}
    ]


@asynccontextmanager
async def no_long_block() -> AsyncIterator[None]:
    """Fails if the event loop is blocked for too long."""
    loop = asyncio.get_running_loop()
    gaps = [0.0]

    async def watch() -> None:
        while True:
            began = loop.time()
            await asyncio.sleep(0.001)
            gaps.append(loop.time() - began)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
    assert max(gaps) < GAP_S


@pytest.mark.parametrize("path", [CHAT, RUNS])
@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (turns(20_001), "20001 messages do not fit"),
        (turns(3, " " * 1_299_999 + "a"), "of 3900000 characters do not fit"),
    ],
    ids=["messages", "blanks"],
)
async def test_what_cannot_fit_does_not_reach_a_scheduler(
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
    messages: list[dict[str, str]],
    says: str,
    path: str,
) -> None:
    def reached(request: RunRequest) -> None:
        raise AssertionError("a scheduler was asked")

    monkeypatch.setattr(runtime.service, "answer", reached)
    monkeypatch.setattr(runtime.service, "open", reached)
    async with connect(runtime.service, runtime.settings) as http:
        refused = await http.post(path, json=short(messages=messages))
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "context_length_exceeded")
    assert says in error["message"]


@pytest.mark.parametrize("mode", ["sequential", "plato"])
@pytest.mark.parametrize(
    "messages", [turns(1001), turns(3, " " * 80_000 + "a"), turns(3, "word ")], ids=len
)
async def test_what_might_fit_blocks_nobody(
    http: httpx.AsyncClient, mode: str, messages: list[dict[str, str]]
) -> None:
    body = {"model": "tiny", "messages": messages, "max_tokens": 5, "plato": {"mode": mode}}
    async with no_long_block():
        answered = await http.post(CHAT, json=body)
    too_long = len(messages) > 3 or len(messages[0]["content"]) > 10
    assert answered.status_code == (400 if too_long else 200), answered.text


async def test_exact_lengths_are_compared_with_the_context(http: httpx.AsyncClient) -> None:
    plan = [{"title": "One", "max_tokens": 100_000}, {"title": "Two", "max_tokens": 2}]
    for stream in (False, True):
        refused = await http.post(
            CHAT, json=short(stream=stream, plato={"plan": plan, "exact_lengths": True})
        )
        assert refused.json()["error"]["code"] == "context_length_exceeded"
        assert "100000 output tokens" in refused.json()["error"]["message"]


MANY = 200_000


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (short(**{f"k{number}": 1 for number in range(MANY)}), "members; send at most"),
        (short(metadata={f"k{number}": "" for number in range(MANY)}), "members; send at most"),
        (short(messages=1_000_000 * [1]), "'messages.0' should be an object"),
        (short(messages=[{"role": "user", "content": MANY * [1]}]), f"{MANY} parts"),
        (short(stop=MANY * [1]), "'stop.0' should be"),
        (short(plato={"plan": MANY * [1]}), "'plato.plan.0' should be"),
        (short(plato={"plan": [{"title": "A", "dependencies": MANY * [""]}]}), "'plato.plan.0.dep"),
        (short(plato={3_000_000 * "k": 1}), "is not a known parameter"),
        (
            short(messages=[{"role": "assistant", "tool_calls": MANY * [1]}]),
            "'messages.0.tool_calls.0' should be",
        ),
        (
            short(messages=[{"role": "user", "content": [{"type": 3_000_000 * "t"}]}]),
            "send parts of type 'text'",
        ),
    ],
    ids=[
        "unknown",
        "metadata",
        "messages",
        "parts",
        "stop",
        "plan",
        "needs",
        "name",
        "calls",
        "type",
    ],
)
async def test_a_wrong_body_is_refused_soon_and_in_short(body: dict[str, Any], says: str) -> None:
    text = json.dumps(body)
    began = time.process_time()
    with pytest.raises(InvalidRequestError) as refused:
        parse_request(text)
    # Before, some took 6 to 30 s.
    assert time.process_time() - began < 4
    assert says in refused.value.message
    assert len(refused.value.message) < 2000
    assert len(refused.value.param or "") < 200


@pytest.mark.parametrize(
    "hints",
    [
        {3_000_000 * "k": 1},
        {"messages": [{"role": "user", "content": "?", f"k{i}": MANY * [1]} for i in range(5)]},
        {
            "messages": [
                {"role": "user", "content": "?", **{f"k{i}-{n}": 1 for n in range(390)}}
                for i in range(500)
            ]
        },
    ],
    ids=["name", "values", "names"],
)
async def test_long_hints_are_ignored_soon_and_in_short(hints: dict[str, Any]) -> None:
    text = json.dumps(short(**hints))
    began = time.process_time()
    ignored = parse_request(text).ignored
    assert time.process_time() - began < 4
    assert len(ignored) <= 32
    assert all(len(name) <= 64 for name in ignored)

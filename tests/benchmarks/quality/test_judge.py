"""A judge over HTTP: a server's faults are scripted, as no real one has them on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from benchmarks.common.rows import InputError
from benchmarks.quality.judge import Judge, judge_all
from benchmarks.quality.pairs import Pair, Verdict

PAIR = Pair("7", "What is rain?", "Water.", "## Rain\n\nWater that falls.")


def says(reply: str) -> httpx.Response:
    return httpx.Response(200, json={"choices": [{"message": {"content": reply}}]})


def judge(answer: Callable[[httpx.Request], httpx.Response], deadline_s: float = 10.0) -> Judge:
    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    extra = {"max_tokens": 500}
    return Judge(http, "http://judge/v1/", "large", "secret", extra, deadline_s, first_wait_s=0.01)


async def test_the_judge_sees_the_question_both_answers_and_no_mode() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return says("Answer 2 says more.\n[[2>1]]")

    verdict = await judge(answer).judge(PAIR)
    assert verdict == Verdict("7", "2>1", "Answer 2 says more.\n[[2>1]]")
    (request,) = asked
    assert str(request.url) == "http://judge/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer secret"
    body = json.loads(request.content)
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("large", 500, 0)
    prompt = body["messages"][-1]["content"]
    places = [prompt.index(text) for text in (PAIR.question, PAIR.answer_1, PAIR.answer_2)]
    assert places == sorted(places)
    assert "plato" not in request.content.decode().lower()


async def test_what_passes_is_asked_again() -> None:
    replies: Iterator[httpx.Response] = iter(
        [httpx.Response(429), httpx.Response(503), says("[[1=2]]")]
    )

    def answer(_: httpx.Request) -> httpx.Response:
        return next(replies)

    assert (await judge(answer).judge(PAIR)).verdict == "1=2"


async def test_a_judge_that_stays_silent_gives_no_verdict_after_the_deadline() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    verdict = await judge(refuse, deadline_s=0.1).judge(PAIR)
    assert verdict.verdict is None
    assert "connection refused" in verdict.reply


async def test_an_unparsable_reply_is_no_verdict_and_is_kept() -> None:
    assert await judge(lambda _: says("Both!")).judge(PAIR) == Verdict("7", None, "Both!")


async def test_a_refusal_says_what_the_server_says() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(401, text="invalid key")

    with pytest.raises(InputError, match=r"status 401: invalid key"):
        await judge(answer).judge(PAIR)


async def test_a_url_without_scheme_is_refused() -> None:
    async with httpx.AsyncClient() as http:
        with pytest.raises(InputError, match="not the URL of a judge"):
            await Judge(http, "judge:80", "large").judge(PAIR)


async def test_no_more_are_asked_at_a_time_than_told() -> None:
    now = most = 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1
        return says("[[1>2]]")

    pairs = [Pair(str(number), "q", "a", "b") for number in range(9)]
    asking = judge(answer)  # type: ignore[arg-type]
    found = [verdict async for verdict in judge_all(asking, pairs, concurrency=3)]
    assert {verdict.pair for verdict in found} == {pair.pair for pair in pairs}
    assert most == 3

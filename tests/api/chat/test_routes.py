"""Chat completions over a real runtime."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest

from plato.metrics.table import ANSWER_SECONDS, FIRST_TEXT_SECONDS
from plato.runtime import Runtime
from tests.api.asking import CHAT, QUESTION, RUNS, chunks_of, long, short, text_of
from tests.recording import MemoryRecorder
from tests.serving import connect, serving

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_completion_has_the_answer_its_usage_and_the_run(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=short())
    assert response.status_code == httpx.codes.OK
    completion = response.json()
    assert completion["choices"][0]["message"]["content"]
    assert completion["usage"]["completion_tokens"] == 12
    assert [node["title"] for node in completion["plato"]["graph"]["nodes"]] == ["Salt", "Depth"]


async def test_a_caller_is_billed_for_the_question_in_every_mode(http: httpx.AsyncClient) -> None:
    history = [{"role": "system", "content": "Be brief."}, *QUESTION]
    sequential = {"messages": history, "max_tokens": 4, "plato": {"mode": "sequential"}}
    plain = (await http.post(CHAT, json=sequential)).json()
    (only,) = plain["plato"]["graph"]["nodes"]
    assert plain["usage"]["prompt_tokens"] == only["prompt_tokens"]
    for mode in ("plato", "skeleton"):
        asked = short(messages=history, plato={"mode": mode})
        planned = (await http.post(CHAT, json=asked)).json()
        usage, work = planned["usage"], planned["plato"]["usage"]
        assert usage["prompt_tokens"] == plain["usage"]["prompt_tokens"] < work["prompt_tokens"]
        assert usage["prompt_tokens_details"]["cached_tokens"] <= usage["prompt_tokens"]
        assert (usage["completion_tokens"], work["output_tokens"]) == (12, 12)


async def test_a_stream_brings_the_same_text_and_the_usage_last(http: httpx.AsyncClient) -> None:
    whole = (await http.post(CHAT, json=short())).json()
    streamed = short(stream=True, stream_options={"include_usage": True})
    chunks = chunks_of(await http.post(CHAT, json=streamed))
    assert text_of(chunks) == whole["choices"][0]["message"]["content"]
    *_, closing, usage = chunks
    assert closing["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert closing["plato"]["mode"] == "plato"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 12


async def test_a_stream_tells_what_happens_to_the_parts_if_asked(http: httpx.AsyncClient) -> None:
    plain = chunks_of(await http.post(CHAT, json=short(stream=True)))
    assert not any("event" in chunk.get("plato", {}) for chunk in plain)
    chunks = chunks_of(await http.post(CHAT, json=short(stream=True, plato={"events": True})))
    events = [chunk["plato"]["event"] for chunk in chunks if "event" in chunk.get("plato", {})]
    kinds = [event["type"] for event in events]
    assert {"mode_chosen", "node_planned", "plan_finished", "node_started"} < set(kinds)
    assert kinds[-1] == "node_finished"
    assert text_of(chunks) == text_of(plain)


async def test_a_completion_can_be_fetched_again(http: httpx.AsyncClient) -> None:
    whole = (await http.post(CHAT, json=short(store=True, metadata={"ticket": "7"}))).json()
    assert whole["metadata"] == {"ticket": "7"}
    assert (await http.get(f"{CHAT}/{whole['id']}")).json() == whole
    refused = await http.get(f"{CHAT}/chatcmpl-none")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "run_not_found")


async def test_a_completion_that_is_not_complete_is_not_there(http: httpx.AsyncClient) -> None:
    location = (await http.post(RUNS, json=long())).headers["location"]
    refused = await http.get(location.replace(RUNS, CHAT))
    assert refused.status_code == httpx.codes.NOT_FOUND
    assert f"see {location}" in refused.json()["error"]["message"]
    await http.delete(location)


async def test_the_name_of_the_model_chooses_the_mode(http: httpx.AsyncClient) -> None:
    body = {"model": "tiny:sequential", "messages": QUESTION, "max_tokens": 4}
    completion = (await http.post(CHAT, json=body)).json()
    assert (completion["model"], completion["plato"]["mode"]) == ("tiny", "sequential")


async def test_a_plan_is_sent_as_reasoning_if_asked(http: httpx.AsyncClient) -> None:
    asked: dict[str, Any] = {"messages": QUESTION, "max_tokens": 200}
    asked["plato"] = {"mode": "plato", "reasoning": True}
    whole = (await http.post(CHAT, json=asked)).json()
    plan = whole["choices"][0]["message"]["reasoning_content"]
    nodes = whole["plato"]["graph"]["nodes"]
    assert plan == "".join(f"{node['number']}. {node['title']}\n" for node in nodes)
    chunks = chunks_of(await http.post(CHAT, json={**asked, "stream": True}))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    lines = [index for index, delta in enumerate(deltas) if "reasoning_content" in delta]
    assert plan.startswith("".join(deltas[index]["reasoning_content"] for index in lines))
    # In front of the answer, or not at all.
    texts = [index for index, delta in enumerate(deltas) if delta.get("content")]
    assert lines
    assert lines[-1] < texts[0]
    for silent in (short(), short(plato={"reasoning": True})):
        message = (await http.post(CHAT, json=silent)).json()["choices"][0]["message"]
        assert "reasoning_content" not in message


async def test_answers_are_timed(runtime: Runtime) -> None:
    recorder = MemoryRecorder()
    async with connect(runtime.service, runtime.settings, recorder) as http:
        await http.post(CHAT, json=short())
        await http.post(CHAT, json=short(stream=True))
    assert len(recorder.values(FIRST_TEXT_SECONDS, mode="plato")) == 2
    assert len(recorder.values(ANSWER_SECONDS, mode="plato")) == 2


async def test_a_client_that_disconnects_cancels_its_run(runtime: Runtime) -> None:
    async with (
        serving(runtime.service, runtime.settings) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
        http.stream("POST", CHAT, json=long(stream=True)) as response,
    ):
        chunks = (line async for line in response.aiter_lines() if line)
        opening = json.loads((await anext(chunks)).removeprefix("data: "))
        run_id = opening["id"].removeprefix("chatcmpl-")
        assert "content" in await anext(chunks)
        assert run_id in runtime.scheduler.runs
        await response.aclose()
        async with asyncio.timeout(30):
            while run_id in runtime.scheduler.runs:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_client_that_waits_for_the_whole_answer_and_disconnects_cancels_its_run(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        serving(runtime.service, runtime.settings) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as http,
    ):
        asking = asyncio.create_task(http.post(CHAT, json=long()))
        async with asyncio.timeout(30):
            while not len(runtime.scheduler.runs):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            asking.cancel()
            while len(runtime.scheduler.runs):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    (ended,) = [record for record in caplog.records if record.message == "run ended"]
    assert vars(ended)["code"] == "cancelled"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_run_that_fails_gives_its_status(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=long(plato={"deadline_s": 0.05}))
    assert response.status_code == httpx.codes.GATEWAY_TIMEOUT
    assert response.json()["error"]["code"] == "deadline_exceeded"

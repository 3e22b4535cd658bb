"""In front of an upstream text is planned as ever, and who asks for a plan gets one."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.metrics.table import PASSED_ON
from plato.runtime import Runtime
from tests.api.passthrough.fronts import (
    MESSAGES,
    NAME,
    Front,
    in_front,
    settings_for,
    upstreams_of,
)
from tests.api.passthrough.test_equal import TOOL
from tests.prompting import families

pytestmark = pytest.mark.slow

PLAN = [{"title": "Salt", "max_tokens": 8}, {"title": "Depth", "max_tokens": 8}]


@pytest.fixture(scope="module")
def backend(tiny_model_folder: str) -> TorchEngine:
    """Computes for the upstream; its thread is a daemon, so nothing is left to close."""
    return TorchEngine(
        TorchEngineConfig(
            tiny_model_folder, device="cpu", dtype="float32", kv_budget_bytes=16 << 20, threads=1
        )
    )


@asynccontextmanager
async def planning_front(backend: TorchEngine, folder: str, **fields: Any) -> AsyncIterator[Front]:
    """Over a runtime whose engine is the upstream."""
    async with upstreams_of(1, backend, backend._model.tokenizer) as upstreams:
        settings = settings_for(
            upstreams,
            model=folder,
            dtype="float32",
            lease_ttl_s=60,
            max_title_words=2,
            **fields,
        )
        async with (
            await Runtime.open(settings) as runtime,
            in_front(upstreams, runtime.service, settings) as opened,
        ):
            yield opened


@pytest.fixture
async def front(backend: TorchEngine, tiny_model_folder: str) -> AsyncIterator[Front]:
    async with planning_front(backend, tiny_model_folder) as opened:
        yield opened


async def test_what_the_upstream_lacks_is_answered_here(front: Front) -> None:
    front.upstream.paths.discard("/v1/responses")
    try:
        async with front.client() as client:
            answer = await client.responses.create(
                model=NAME, input="Why?", max_output_tokens=8, reasoning={"effort": "low"}
            )
    finally:
        front.upstream.paths.add("/v1/responses")
    assert answer.id != "resp_up"
    assert answer.output_text


async def test_an_answer_from_here_that_is_referred_to_is_passed_on(front: Front) -> None:
    async with front.client() as client:
        first = await client.responses.create(
            model=f"{NAME}:plato", input="Why?", max_output_tokens=8
        )
        given: Any = [
            {"role": "user", "content": "Why?"},
            {"type": "item_reference", "id": first.output[0].id},
            {"type": "item_reference", "id": f"msg_{'0' * 32}"},
            {"role": "user", "content": "And lakes?"},
        ]
        answer = await client.responses.create(model=NAME, input=given)
    assert answer.id == "resp_up"
    given[1] = {"role": "assistant", "content": first.output_text}
    assert front.upstream.passed[-1][1]["input"] == given


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"tools": [TOOL], "tool_choice": "none", "user": "me", "metadata": {"a": "b"}},
        {"model": f"{NAME}:plato", "tools": [TOOL]},
        {"plato": {"mode": "plato", "plan": PLAN}},
        {"plato": {"mode": "sequential", "events": True}, "stream": True},
    ],
)
async def test_what_can_be_planned_is_not_passed_on(front: Front, asked: dict[str, Any]) -> None:
    async with front.http() as http:
        response = await http.post(
            "/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 40, **asked}
        )
    assert response.status_code == httpx.codes.OK
    assert "plato" in response.text
    assert not front.upstream.passed


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"plato": {"mode": "tree"}}, "plato.mode"),
        ({"plato": {"headlines": True}}, "plato.headlines"),
        ({"model": f"{NAME}:plato", "n": 2}, "n"),
    ],
)
async def test_who_asks_for_plato_is_told_what_it_cannot(
    front: Front, asked: dict[str, Any], param: str
) -> None:
    async with front.http() as http:
        refused = await http.post("/v1/chat/completions", json={"messages": MESSAGES, **asked})
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert refused.json()["error"]["param"] == param
    assert not front.upstream.passed


@pytest.fixture
def thinking_folder(tiny_model_folder: str, tmp_path: Path) -> str:
    """The same model, whose template opens turns with thinking unless it is told not to."""
    folder = shutil.copytree(tiny_model_folder, tmp_path / "thinking")
    (folder / "chat_template.jinja").write_text(families.QWEN_3)
    return str(folder)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_thinking_model_does_not_split_is_answered_with_thinking(
    backend: TorchEngine, thinking_folder: str, stream: bool
) -> None:
    body = {"messages": MESSAGES, "max_tokens": 400, "stream": stream}
    # A threshold that no probability is under: `auto` splits nothing.
    async with (
        planning_front(backend, thinking_folder, split_threshold=0.0) as front,
        front.http() as http,
    ):
        answer = await http.post("/v1/chat/completions", json=body)
        assert "chatcmpl-up" in answer.text
        assert "reasoning_content" in answer.text
        assert "plato" not in answer.text
        ((_, passed),) = front.upstream.passed
        assert passed["max_tokens"] == 400
        # There was no run.
        assert (await http.get("/v1/runs")).json()["data"] == []
        named = answer.headers["x-request-id"]
        assert (await http.get(f"/v1/runs/{named}")).status_code == httpx.codes.NOT_FOUND
        assert front.upstream.headers[-1]["x-request-id"] == named
        assert front.recorder.total(PASSED_ON, outcome="answered") == 1
        planned = await http.post(
            "/v1/chat/completions", json={**body, "plato": {"mode": "plato", "plan": PLAN}}
        )
        assert "chatcmpl-up" not in planned.text
        assert len(front.upstream.passed) == 1


async def test_a_response_is_answered_with_thinking_where_the_upstream_has_responses(
    backend: TorchEngine, thinking_folder: str
) -> None:
    body = {"input": "Why is the sea salty?", "max_output_tokens": 400}
    async with (
        planning_front(backend, thinking_folder, split_threshold=0.0) as front,
        front.http() as http,
    ):
        assert (await http.post("/v1/responses", json=body)).json()["id"] == "resp_up"
        ((path, passed),) = front.upstream.passed
        assert (path, passed["max_output_tokens"]) == ("/v1/responses", 400)
        front.upstream.paths.discard("/v1/responses")
        here = (await http.post("/v1/responses", json={**body, "max_output_tokens": 8})).json()
        assert here["id"] != "resp_up"
        assert here["status"] in ("completed", "incomplete")
        background = await http.post("/v1/responses", json={**body, "background": True})
        assert background.json()["status"] == "in_progress"
    assert len(front.upstream.passed) == 1


async def test_what_another_model_does_not_split_is_answered_here_with_what_is_lost(
    backend: TorchEngine, tiny_model_folder: str
) -> None:
    body = {"messages": MESSAGES, "max_tokens": 400}
    async with (
        planning_front(backend, tiny_model_folder, split_threshold=0.0) as front,
        front.http() as http,
    ):
        answer = (await http.post("/v1/chat/completions", json=body)).json()
        info = (await http.get("/v1/info")).json()
    assert answer["plato"]["mode"] == "sequential"
    assert "not split" in answer["plato"]["reason"]
    assert answer["plato"]["losses"] == info["losses"]
    assert "prefixes are reused in blocks of 16 tokens" in info["losses"]
    assert not front.upstream.passed

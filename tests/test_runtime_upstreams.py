"""The whole pipeline in front of servers of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.errors import ModelError
from plato.runs import NodeState
from plato.runtime import Runtime
from plato.settings import Settings
from tests.engine.upstream.server import WireServer
from tests.engine.upstream.wires import LlamaServer, SglangServer, VllmServer

CONTEXT = 2048
QUESTION = "What should I think of before I buy a used bicycle?"
PLAN = [
    {"title": "Where to look", "max_tokens": 30},
    {"title": "The frame", "dependencies": [1], "max_tokens": 30},
    {"title": "The brakes", "max_tokens": 30},
    {"title": "What to decide", "dependencies": [2, 3], "max_tokens": 30},
]
GIVEN: dict[str, Any] = {"mode": "plato", "plan": PLAN}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def backend(tiny_model_folder: str) -> TorchEngine:
    """Computes for the servers; its thread is a daemon, so nothing is left to close."""
    return TorchEngine(
        TorchEngineConfig(
            tiny_model_folder, device="cpu", dtype="float32", kv_budget_bytes=16 << 20, threads=1
        )
    )


@pytest.fixture
async def servers(request: pytest.FixtureRequest, backend: TorchEngine) -> AsyncIterator[Any]:
    """Of the kinds that the test names, over one model."""
    kinds: tuple[type[WireServer], ...] = request.param
    tokenizer = backend._model.tokenizer
    servers = [kind(backend, tokenizer, CONTEXT) for kind in kinds]
    for server in servers:
        await server.http.start()
    yield servers
    for server in servers:
        await server.http.stop()


def settings_for(servers: list[WireServer], folder: str, **fields: Any) -> Settings:
    urls = tuple(server.http.url for server in servers)
    return Settings(
        model=folder,
        dtype="float32",
        engine="openai",
        upstreams=urls,
        upstream_start_s=5.0,
        temperature=0.0,
        max_title_words=2,
        lease_ttl_s=60,
        **fields,
    )


@pytest.mark.parametrize(
    "servers", [(VllmServer,), (SglangServer,), (LlamaServer,)], indirect=True, ids=lambda k: ""
)
async def test_a_plan_is_written_or_given_and_answered(
    servers: list[WireServer], tiny_model_folder: str
) -> None:
    async with await Runtime.open(settings_for(servers, tiny_model_folder)) as runtime:
        given = await runtime.ask(QUESTION, plato=GIVEN)
        assert [node.state for node in given.report.nodes] == [NodeState.DONE] * 4
        assert given.text
        written = await runtime.ask(
            QUESTION, plato={"mode": "plato", "max_nodes": 3}, max_completion_tokens=60
        )
        # Of random weights: its titles may be refused, and the answer is sequential then.
        assert written.report.plan.source == "model"
        assert written.text
        auto = await runtime.ask(QUESTION, max_completion_tokens=200)
        assert auto.report.plan.one_probability is not None
    assert servers[0].bodies


@pytest.mark.parametrize("servers", [(VllmServer, VllmServer)], indirect=True, ids=["vllm"])
async def test_answers_are_complete_though_a_server_is_killed_in_mid_stream(
    servers: list[WireServer], tiny_model_folder: str
) -> None:
    async with await Runtime.open(settings_for(servers, tiny_model_folder)) as runtime:
        whole = await runtime.ask(QUESTION, plato=GIVEN)
        asked = [asyncio.create_task(runtime.ask(QUESTION, plato=GIVEN)) for _ in range(8)]
        before = [len(server.bodies) for server in servers]
        async with asyncio.timeout(20):
            while not all(  # noqa: ASYNC110 - a server sets no event
                len(server.bodies) > count for server, count in zip(servers, before, strict=True)
            ):
                await asyncio.sleep(0.01)
        await servers[0].http.stop()
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*asked)
        # Planners choose no decoder themselves: they get one that answers.
        written = await runtime.ask(QUESTION, plato={"mode": "plato", "max_nodes": 2})
    assert written.report.plan.source == "model"
    assert {answer.text for answer in answers} == {whole.text}
    assert any(node.attempts > 1 for answer in answers for node in answer.report.nodes)


@pytest.mark.parametrize("servers", [(VllmServer,)], indirect=True, ids=["vllm"])
async def test_a_server_that_is_away_at_start_is_a_model_error_that_names_it(
    servers: list[WireServer], tiny_model_folder: str
) -> None:
    await servers[0].http.stop()
    settings = settings_for(servers, tiny_model_folder)
    settings = settings.model_copy(update={"upstream_start_s": 0.2})
    with pytest.raises(ModelError, match=servers[0].http.url):
        await Runtime.open(settings)

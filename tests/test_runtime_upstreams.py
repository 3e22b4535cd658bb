"""The whole pipeline in front of servers of others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from plato.assembly import check_upstreams
from plato.engine import UpstreamError
from plato.engine.openai import health
from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.errors import ModelError, SettingsError, UnavailableError
from plato.runs import NodeState
from plato.runs.events import RunError
from plato.runtime import Runtime
from plato.settings import Settings
from tests.engine.helpers import ask
from tests.engine.upstream.chat_wire import ChatServer, PlainChatServer, PlatoServer
from tests.engine.upstream.server import WireServer
from tests.engine.upstream.wires import LlamaServer, SglangServer, VllmServer
from tests.engine.waiting import until

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
    kinds: tuple[type[WireServer | PlatoServer], ...] = request.param
    tokenizer = backend._model.tokenizer
    servers = [kind(backend, tokenizer, CONTEXT) for kind in kinds]
    for server in servers:
        await server.http.start()
    yield servers
    for server in servers:
        await server.stop()


def settings_for(
    servers: Sequence[WireServer | PlatoServer], folder: str, **fields: Any
) -> Settings:
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


@pytest.mark.parametrize(
    "servers", [(ChatServer,), (PlainChatServer,), (PlatoServer,)], indirect=True, ids=lambda k: ""
)
async def test_chat_completions_are_enough(
    servers: list[WireServer | PlatoServer], tiny_model_folder: str
) -> None:
    settings = settings_for(servers, tiny_model_folder, upstream_model=servers[0].model_name)
    async with await Runtime.open(settings) as runtime:
        given = await runtime.ask(QUESTION, plato=GIVEN)
        assert [node.state for node in given.report.nodes] == [NodeState.DONE] * 4
        assert given.text
        written = await runtime.ask(
            QUESTION, plato={"mode": "plato", "max_nodes": 2}, max_completion_tokens=60
        )
        # Random weights write no plan, and the answer says so.
        assert written.report.plan.source == "model"
        assert written.text
        assert written.report.reason
        auto = await runtime.ask(QUESTION, max_completion_tokens=200)
        assert auto.report.mode == "sequential"
        assert auto.report.reason
        states = await runtime.service.decoders()
        assert [state.health for state in states] == ["ready"]


@pytest.mark.parametrize("servers", [(PlainChatServer,)], indirect=True, ids=["chat"])
async def test_without_log_probabilities_auto_answers_in_one_piece_and_says_why(
    servers: list[WireServer], tiny_model_folder: str
) -> None:
    async with await Runtime.open(settings_for(servers, tiny_model_folder)) as runtime:
        auto = await runtime.ask(QUESTION, max_completion_tokens=200)
    assert auto.report.reason == "not split: the engine reports no log probabilities"


@pytest.mark.parametrize("servers", [(VllmServer, VllmServer)], indirect=True, ids=["vllm"])
async def test_one_server_that_is_away_leaves_the_others_ready(
    servers: list[WireServer], tiny_model_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "INTERVAL_S", 0.05)
    async with await Runtime.open(settings_for(servers, tiny_model_folder)) as runtime:
        away, well = runtime.engines.values()
        assert (await runtime.ask(QUESTION, plato=GIVEN)).text
        await servers[0].http.stop()
        # A server is watched from its first request on.
        with suppress(UpstreamError):
            async for _ in away.generate(ask([1, 2, 3])):
                pass
        await until(lambda: away.stats().problem)
        ready = await runtime.service.ready()
        assert ready["decoders"] == {"local-0": "away", "local-1": "ready"}
        assert (await runtime.ask(QUESTION, plato=GIVEN)).text
        await well.close()
        with pytest.raises(UnavailableError, match=r"is away: .*; .*shutting down"):
            await runtime.service.ready()


@pytest.mark.parametrize("servers", [(VllmServer, VllmServer)], indirect=True, ids=["vllm"])
async def test_a_server_that_answers_nonsense_is_left_for_another(
    servers: list[WireServer], tiny_model_folder: str
) -> None:
    async with await Runtime.open(settings_for(servers, tiny_model_folder)) as runtime:
        whole = await runtime.ask(QUESTION, plato=GIVEN)
        servers[0].broken = True
        answer = await runtime.ask(QUESTION, plato=GIVEN)
        written = await runtime.ask(QUESTION, plato={"mode": "plato", "max_nodes": 2})
    assert answer.text == whole.text
    assert "planner failed" not in (written.report.reason or "")


@pytest.mark.parametrize("servers", [(VllmServer, VllmServer)], indirect=True, ids=["vllm"])
@pytest.mark.parametrize("status", [404, 429, 503])
async def test_another_server_writes_the_plan_at_once(
    servers: list[WireServer], tiny_model_folder: str, status: int
) -> None:
    async with await Runtime.open(settings_for(servers, tiny_model_folder)) as runtime:
        servers[0].refusal = status, "10"
        async with asyncio.timeout(9):
            written = await runtime.ask(QUESTION, plato={"mode": "plato", "max_nodes": 2})
    assert servers[0].bodies
    assert "planner failed" not in (written.report.reason or "")


@pytest.mark.parametrize("servers", [(VllmServer,)], indirect=True, ids=["vllm"])
@pytest.mark.parametrize("status", [429, 503])
async def test_the_only_server_is_waited_for_while_it_takes_nothing(
    servers: list[WireServer], tiny_model_folder: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "INTERVAL_S", 0.2)
    (server,) = servers
    async with await Runtime.open(settings_for(servers, tiny_model_folder)) as runtime:
        whole = await runtime.ask(QUESTION, plato=GIVEN)
        server.refusal = status, "1"
        before = len(server.bodies)
        asked = asyncio.create_task(runtime.ask(QUESTION, plato=GIVEN))
        # Longer than the attempts of a node at a decoder that fails.
        await asyncio.sleep(4)
        assert not asked.done()
        assert len(server.bodies) - before < 10
        server.refusal = None
        async with asyncio.timeout(20):
            answer = await asked
    assert answer.text == whole.text


@pytest.mark.parametrize("servers", [(VllmServer, VllmServer)], indirect=True, ids=["vllm"])
async def test_a_server_without_room_is_left_for_another(
    servers: list[WireServer], tiny_model_folder: str
) -> None:
    async with await Runtime.open(settings_for(servers, tiny_model_folder)) as runtime:
        whole = await runtime.ask(QUESTION, plato=GIVEN)
        servers[0].refusal = 429, "45"
        before = len(servers[0].bodies)
        async with asyncio.timeout(20):
            answer = await runtime.ask(QUESTION, plato=GIVEN)
            written = await runtime.ask(QUESTION, plato={"mode": "plato", "max_nodes": 2})
    assert answer.text == whole.text
    assert "planner failed" not in (written.report.reason or "")
    assert len(servers[0].bodies) - before <= len(PLAN)


@pytest.mark.parametrize("servers", [(VllmServer, VllmServer)], indirect=True, ids=["vllm"])
async def test_who_asks_is_told_when_some_server_has_room_again(
    servers: list[WireServer], tiny_model_folder: str
) -> None:
    async with await Runtime.open(settings_for(servers, tiny_model_folder)) as runtime:
        for server, retry_after in zip(servers, ("45", "55"), strict=True):
            server.refusal = 429, retry_after
        async with asyncio.timeout(10):
            with pytest.raises(RunError, match="has no room: status 429") as raised:
                await runtime.ask(QUESTION, plato=GIVEN)
    assert raised.value.status == 429
    assert raised.value.retry_after_s == pytest.approx(45, abs=5)
    assert "10.0.0.1" not in raised.value.message


@pytest.mark.parametrize("servers", [(VllmServer,)], indirect=True, ids=["vllm"])
async def test_a_prompt_that_is_too_long_for_the_server_has_the_code_for_it(
    servers: list[WireServer], tiny_model_folder: str
) -> None:
    servers[0].context_length = 100
    async with await Runtime.open(settings_for(servers, tiny_model_folder)) as runtime:
        with pytest.raises(RunError, match="model's context of 100 tokens") as raised:
            await runtime.ask(QUESTION + " Why?" * 100, plato=GIVEN)
    assert (raised.value.status, raised.value.code) == (400, "context_length_exceeded")


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


@pytest.mark.parametrize("servers", [(LlamaServer,)], indirect=True, ids=["llama"])
async def test_a_server_that_cannot_separate_tenants_is_refused_at_start_for_several(
    servers: list[WireServer], tiny_model_folder: str
) -> None:
    settings = settings_for(servers, tiny_model_folder, tenant_header="X-Tenant")
    with pytest.raises(SettingsError, match="for one tenant"):
        await Runtime.open(settings)
    with pytest.raises(SettingsError, match="for one tenant"):
        await asyncio.to_thread(check_upstreams, settings, tiny_model_folder)

"""Two models beside each other, as while an application is updated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from plato.assembly import new_planner, public_prompts
from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.prompting.model_tools import ModelTools
from plato.runs import Mode, NodeOutput, RunFailed, RunState
from plato.runtime import LocalPool
from plato.settings import Settings
from tests.faults import FaultyEngines
from tests.scheduling.cluster import Cluster, Process
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import DIAMOND, collect, finished, of, parts, question, until

pytestmark = pytest.mark.hostile

OTHER = "another model"


def other_model(tools: ModelTools) -> ModelTools:
    """Of another model, with the same tokenizer."""
    return replace(tools, fingerprint=OTHER, base_fingerprint=OTHER)


async def test_every_prompt_is_for_the_model(
    make_scheduler: MakeScheduler, engine: TorchEngine, tools: ModelTools
) -> None:
    assert tools.base_fingerprint == tools.fingerprint  # It has no adapter.
    settings = Settings(max_title_words=2, equal_work=True)
    pool = FaultyEngines({"local": engine})
    scheduler = make_scheduler(pool, planner=new_planner(settings, tools, pool))
    for asked in (question(), question(plan=parts(*DIAMOND)), question(mode=Mode.SEQUENTIAL)):
        finished(await collect(scheduler, asked))
    prompts = [request.prompt for _, request in pool.requests]
    assert len(prompts) > 6
    prompts += public_prompts(tools)
    assert {prompt.fingerprint for prompt in prompts} == {tools.fingerprint}


@pytest.fixture
async def mixed(cluster: Cluster) -> Cluster:
    """The first scheduler has the model of the decoders, the second one another."""
    await cluster.schedulers[1].scheduler.close()
    cluster.tools = other_model(cluster.tools)
    cluster.schedulers[1] = Process("other", cluster)
    for switch in cluster.pool.switches.values():
        switch.slow_s = 0.1
    return cluster


async def test_a_scheduler_does_not_adopt_a_run_of_another_model(
    mixed: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    first, other = mixed.schedulers
    asked = question(mode=Mode.SEQUENTIAL)
    await first.scheduler.open(asked)
    await until(lambda: bool(mixed.pool.requests))
    await first.kill()
    await until(lambda: "it was begun with the model" in caplog.text)
    assert first.scheduler.stats().running == 0
    assert asked.run_id not in other.scheduler.runs
    assert OTHER in caplog.text
    # Whatever has happened to it can be read.
    assert (await other.scheduler.runs.snapshot("", asked.run_id)).request.messages


async def test_a_run_is_not_continued_with_another_model_and_its_caller_is_told(
    make_scheduler: MakeScheduler, pool: LocalPool, tools: ModelTools
) -> None:
    first, other = make_scheduler(pool), make_scheduler(pool, model=other_model(tools))
    asked = question(mode=Mode.SEQUENTIAL, fingerprint=tools.fingerprint)
    received = await collect(first, asked)
    state = RunState(asked, received[:-1])
    assert of(NodeOutput, list(state.events()))
    for events in (state.events(), None):
        ((failed,),) = [batch async for batch in other.run(asked, events)]
        assert isinstance(failed, RunFailed)
        assert failed.code == "unavailable"
        assert f"is for the model {tools.fingerprint}" in failed.message
        assert OTHER in failed.message
    assert other.stats().running == 0


@pytest.fixture
async def old(tiny_model_folder: str) -> AsyncIterator[TorchEngine]:
    """A decoder with another precision."""
    config = TorchEngineConfig(
        tiny_model_folder,
        name="old",
        device="cpu",
        dtype="bfloat16",
        kv_budget_bytes=4 << 20,
        threads=1,
    )
    engine = await asyncio.to_thread(TorchEngine, config)
    yield engine
    await engine.close()


async def test_decoders_of_another_model_refuse_and_those_of_the_same_answer(
    make_scheduler: MakeScheduler, engine: TorchEngine, old: TorchEngine
) -> None:
    scheduler = make_scheduler(LocalPool({"old": old, "local": engine}))
    for _ in range(4):
        report = finished(await collect(scheduler, question(mode=Mode.SEQUENTIAL)))
        assert {node.replica for node in report.nodes} == {"local"}
    assert old.stats().output_tokens == 0
    alone = make_scheduler(LocalPool({"old": old}), node_attempts=1)
    (*_, failed) = await collect(alone, question(mode=Mode.SEQUENTIAL))
    assert isinstance(failed, RunFailed)
    assert "give all processes the same model and dtype" in failed.message

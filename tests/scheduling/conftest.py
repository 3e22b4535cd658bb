"""The real engine with the tiny model, and schedulers over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from plato.assembly import new_planner, new_scheduler
from plato.context import ContextStore, MemoryContextStore
from plato.engine import DecoderPool
from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.engine.torch.core import EngineCore
from plato.metrics import NO_METRICS, Recorder
from plato.planning.protocol import Planner
from plato.prompting.model_tools import ModelTools
from plato.runtime import LocalPool
from plato.scheduling import plan_follower
from plato.scheduling.scheduler import GraphScheduler
from plato.settings import Settings
from tests.faults import FaultyEngines
from tests.scheduling.cluster import Cluster, Process
from tests.scheduling.helpers import until

MakeScheduler = Callable[..., GraphScheduler]


@pytest.fixture(scope="session")
def tools(tiny_model_folder: str) -> ModelTools:
    # The same dtype as the engines: it is part of the fingerprint.
    return ModelTools.load(Settings(model=tiny_model_folder, dtype="float32"))


@pytest.fixture(scope="session")
def shared_engine(tiny_model_folder: str) -> TorchEngine:
    # Its thread is a daemon and belongs to no event loop: nothing is left to close.
    return TorchEngine(
        TorchEngineConfig(
            tiny_model_folder,
            name="local",
            device="cpu",
            dtype="float32",
            kv_budget_bytes=16 << 20,
            threads=1,
        )
    )


@pytest.fixture
async def engine(shared_engine: TorchEngine) -> AsyncIterator[TorchEngine]:
    """An engine that every test must leave idle and sound."""
    yield shared_engine
    await until(lambda: shared_engine.stats().live == ())
    await shared_engine.inspect(EngineCore.check_integrity)


@pytest.fixture
def pool(engine: TorchEngine) -> LocalPool:
    return LocalPool({"local": engine})


@pytest.fixture(scope="session")
def model_planner(tools: ModelTools, shared_engine: TorchEngine) -> Planner:
    """The real planner: the tiny model writes nonsense, but under the grammar."""
    return new_planner(
        Settings(max_title_words=2, equal_work=True), tools, LocalPool({"local": shared_engine})
    )


@pytest.fixture
async def make_scheduler(tools: ModelTools, model_planner: Planner) -> AsyncIterator[MakeScheduler]:
    """Builds a scheduler; anything but the pool has a default."""
    made: list[GraphScheduler] = []

    def make(
        pool: DecoderPool,
        *,
        planner: Planner | None = None,
        store: ContextStore | None = None,
        recorder: Recorder = NO_METRICS,
        model: ModelTools = tools,
        **config: Any,
    ) -> GraphScheduler:
        # A generous lease: nothing but the tests of leases is about slow machines.
        defaults = {"node_max_tokens": 12, "sequential_max_tokens": 12, "lease_ttl_s": 10.0}
        # Copied, not validated: tests are quicker than what operators may set.
        settings = Settings().model_copy(update={**defaults, **config})
        scheduler = new_scheduler(
            settings,
            model,
            planner=planner or model_planner,
            pool=pool,
            store=store or MemoryContextStore(),
            name="scheduler",
            recorder=recorder,
        )
        made.append(scheduler)
        return scheduler

    yield make
    for scheduler in made:
        await scheduler.close()


@pytest.fixture
def scheduler(make_scheduler: MakeScheduler, pool: LocalPool) -> GraphScheduler:
    """All parts real, in this process."""
    return make_scheduler(pool)


@pytest.fixture(scope="session")
def shared_engines(tiny_model_folder: str) -> dict[str, TorchEngine]:
    return {
        name: TorchEngine(
            TorchEngineConfig(
                tiny_model_folder,
                name=name,
                device="cpu",
                dtype="float32",
                kv_budget_bytes=16 << 20,
                threads=1,
            )
        )
        for name in ("a", "b", "c")
    }


@pytest.fixture
async def cluster(
    shared_engines: dict[str, TorchEngine], tools: ModelTools, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cluster]:
    # Its planners die far more often than any would.
    monkeypatch.setattr(plan_follower, "PLAN_ATTEMPTS", 20)
    before = len(asyncio.all_tasks())
    made = Cluster(FaultyEngines(dict(shared_engines)), tools)
    made.schedulers = [Process(f"scheduler-{index}", made) for index in range(2)]
    yield made
    made.mend()
    for process in made.schedulers:
        await process.scheduler.close()
    for engine in shared_engines.values():
        await until(lambda engine=engine: engine.stats().live == ())
        await engine.inspect(EngineCore.check_integrity)
    await until(lambda: len(asyncio.all_tasks()) <= before)

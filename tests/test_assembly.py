"""Parts that the settings name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from benchmarks.policies import ByRunName
from plato.assembly import new_engine, new_policy, open_store
from plato.engine import Engine, Prompt, Segment
from plato.engine.capabilities import BUILT_IN
from plato.errors import SettingsError
from plato.scheduling.placement import KVAware, PlacementRequest, ReplicaView
from plato.settings import Settings

CALLS: list[tuple[Settings, str, str]] = []
ENGINE: Engine = SimpleNamespace(capabilities=BUILT_IN)  # type: ignore[assignment]


def make_engine(settings: Settings, folder: str, name: str) -> Engine:
    CALLS.append((settings, folder, name))
    return ENGINE


async def test_the_default_engine_is_the_built_in_one(tiny_model_folder: str) -> None:
    settings = Settings(device="cpu", dtype="float32", kv_budget_mb=4, decoder_threads=1)
    engine = new_engine(settings, tiny_model_folder, "decoder-0")
    assert engine.stats().dtype == "float32"
    await engine.close()


def test_another_engine_comes_from_the_factory_that_the_settings_name() -> None:
    settings = Settings(engine=f"{__name__}:make_engine", engine_options={"pace": 2})
    assert new_engine(settings, "folder", "decoder-0") is ENGINE
    assert [(settings, "folder", "decoder-0")] == CALLS


async def test_keys_begin_with_the_namespace_or_else_the_name_of_the_application(
    valkey_url: str,
) -> None:
    async with Redis.from_url(valkey_url, protocol=2) as client:
        for namespace, first in ((None, b"app"), ("shop%", b"shop%25")):
            await client.flushdb()
            settings = Settings(redis_url=valkey_url, namespace=namespace, redis_timeout_s=5)
            store = await open_store(settings, "model", app="app")
            assert await store.append_kv_events(b"entry")
            assert await store.acquire("tenant", "run", "owner", 1.0)
            await store.close()
            names = b":kv:model", b":running:model", b":tenant:{run}:state"
            assert set(await client.keys()) == {first + name for name in names}


@pytest.mark.parametrize(
    "engine",
    [
        "vllm",
        "random",
        "",
        ":factory",
        ".relative:factory",
        "no_such_module:factory",
        "plato.testing.paced",
        "plato.testing.paced:no_such_factory",
    ],
)
def test_an_engine_that_cannot_be_imported_is_refused(engine: str) -> None:
    with pytest.raises(SettingsError, match=r"write torch or openai, or package\.module:name"):
        new_engine(Settings(engine=engine), "folder", "decoder-0")


@pytest.mark.parametrize(("move_cost", "moves"), [(0.1, True), (None, False)])
def test_the_built_in_policy_moves_kv_if_a_cost_is_set(
    move_cost: float | None, moves: bool
) -> None:
    policy = new_policy(Settings(move_cost=move_cost))
    assert isinstance(policy, KVAware)
    sequence = PlacementRequest("r", Prompt((Segment((1,) * 2000),)), 10)
    target, holder = ReplicaView("a"), ReplicaView("b", confirmed=1000)
    source = policy.source(sequence, target, (target, holder))
    assert source == (holder if moves else None)


def test_another_policy_is_imported() -> None:
    policy = new_policy(Settings(placement="benchmarks.policies:ByRunName"))
    assert isinstance(policy, ByRunName)


@pytest.mark.parametrize(
    "placement", ["random", "", ":", "no_such_module:Policy", "benchmarks.policies:NoSuchPolicy"]
)
def test_a_policy_that_cannot_be_imported_is_refused(placement: str) -> None:
    with pytest.raises(SettingsError, match=r"write kv_aware, or package\.module:name"):
        new_policy(Settings(placement=placement))

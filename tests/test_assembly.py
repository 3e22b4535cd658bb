"""Parts that the settings name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from redis.asyncio import Redis

from benchmarks.policies import ByRunName
from plato.assembly import (
    check_upstreams,
    new_engine,
    new_policy,
    open_store,
    upstream_config,
    vllm_config,
)
from plato.engine import Engine, EngineError, Prompt, Segment, UpstreamError, fingerprint
from plato.engine.capabilities import BUILT_IN
from plato.engine.fingerprint import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.vllm import VllmConfig
from plato.errors import ModelError, SettingsError
from plato.scheduling.placement import KVAware, PlacementRequest, ReplicaView
from plato.settings import Settings, read_settings
from tests.engine.upstream.scripted import ScriptedServer

CALLS: list[tuple[Settings, str, str]] = []
ENGINE: Engine = SimpleNamespace(capabilities=BUILT_IN)  # type: ignore[assignment]


def make_engine(settings: Settings, folder: str, name: str) -> Engine:
    CALLS.append((settings, folder, name))
    return ENGINE


async def test_the_default_engine_is_the_built_in_one(tiny_model_folder: str) -> None:
    settings = Settings(
        adapter="none", device="cpu", dtype="float32", kv_budget_mb=4, decoder_threads=1
    )
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
    with pytest.raises(
        SettingsError, match=r"write torch, vllm or openai, or package\.module:name"
    ):
        new_engine(Settings(engine=engine), "folder", "decoder-0")


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_its_engine_says_how_to_install_it(tiny_model_folder: str) -> None:
    with pytest.raises(EngineError, match=r"pip install 'plato-serve\[vllm\]'"):
        new_engine(Settings(engine="vllm"), tiny_model_folder, "decoder-0")


def test_vllm_gets_the_model_its_adapter_and_the_limits(
    tiny_model_folder: str, tmp_path: Path
) -> None:
    (tmp_path / ADAPTER_CONFIG).write_text('{"peft_type": "LORA", "r": 8}')
    (tmp_path / ADAPTER_WEIGHTS).write_bytes(b"\2\0\0\0\0\0\0\0{}")
    settings = Settings(
        engine="vllm",
        adapter=str(tmp_path),
        dtype="bfloat16",
        kv_budget_mb=2,
        tensor_parallel_size=2,
        gpu_memory_utilization=0.5,
        engine_options={"quantization": "fp8"},
        max_sequences=3,
        max_waiting=4,
    )
    tokenizer = TokenizerConfig.load(tiny_model_folder)
    assert vllm_config(settings, tiny_model_folder, "decoder-0", tokenizer) == VllmConfig(
        tiny_model_folder,
        tokenizer,
        "decoder-0",
        fingerprint(tiny_model_folder, "bfloat16", tmp_path),
        adapter=tmp_path,
        base_fingerprint=fingerprint(tiny_model_folder, "bfloat16"),
        dtype="bfloat16",
        tensor_parallel_size=2,
        gpu_memory_utilization=0.5,
        kv_budget_bytes=2 << 20,
        max_sequences=3,
        max_waiting=4,
        options={"quantization": "fp8"},
    )


def test_only_vllm_shares_a_model_among_gpus() -> None:
    with pytest.raises(SettingsError, match="leave tensor_parallel_size out"):
        read_settings({"tensor_parallel_size": 2})


@pytest.mark.parametrize(
    ("engine", "move_cost", "moves"),
    [("torch", 0.1, True), ("torch", None, False), ("vllm", 0.1, False)],
)
def test_the_built_in_policy_moves_kv_if_a_cost_is_set(
    engine: str, move_cost: float | None, moves: bool
) -> None:
    policy = new_policy(Settings(engine=engine, move_cost=move_cost))
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


class TestUpstreams:
    URLS = ("http://one:8000/v1/", "https://two")

    def settings(self, **fields: object) -> Settings:
        return Settings.model_validate({"engine": "openai", "upstreams": self.URLS, **fields})

    def test_each_is_a_decoder(self, tiny_model_folder: str) -> None:
        settings = self.settings(max_sequences=5, dtype="float32")
        tokenizer = TokenizerConfig.load(tiny_model_folder)
        assert settings.decoder_count == 2
        configs = [
            upstream_config(settings, tiny_model_folder, f"decoder-{index}", tokenizer, index)
            for index in range(2)
        ]
        assert [config.url for config in configs] == ["http://one:8000", "https://two"]
        assert {config.fingerprint for config in configs} == {
            fingerprint(tiny_model_folder, "float32", weights=False)
        }
        assert {(config.key, config.max_sequences) for config in configs} == {(None, 5)}

    def test_they_can_be_named_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLATO_ENGINE", "openai")
        monkeypatch.setenv("PLATO_UPSTREAMS", "http://one:8000, https://two/v1")
        assert Settings().upstreams == ("http://one:8000", "https://two")

    def test_a_key_comes_from_the_environment_or_a_file_and_is_not_shown(
        self, tiny_model_folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        tokenizer = TokenizerConfig.load(tiny_model_folder)
        file = tmp_path / "key"
        file.write_text("from-file\n")

        def key(settings: Settings) -> str | None:
            config = upstream_config(settings, tiny_model_folder, "d", tokenizer, 0)
            assert config.key is None or config.key not in f"{config!r}{settings!r}"
            return config.key

        assert key(self.settings(upstream_api_key_file=str(file))) == "from-file"
        monkeypatch.setenv("PLATO_UPSTREAM_API_KEY", "from-environment")
        assert key(self.settings()) == "from-environment"
        monkeypatch.delenv("PLATO_UPSTREAM_API_KEY")
        with pytest.raises(SettingsError, match=r"cannot be read \(No such file"):
            key(self.settings(upstream_api_key_file=str(tmp_path / "missing")))

    def test_no_kv_is_transferred_between_them(self) -> None:
        assert new_policy(self.settings())._move_cost is None  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"upstreams": ()}, "add --upstream URL"),
            ({"engine": "torch"}, "add --engine openai"),
            ({"decoders": 2}, "each of the upstreams is a decoder"),
            ({"max_decoders": 4}, "each of the upstreams is a decoder"),
            ({"upstreams": "one:8000"}, "no URL"),
            ({"upstreams": "http://user:secret@one"}, "user or password"),
        ],
    )
    def test_settings_that_contradict_each_other_are_refused(
        self, fields: dict[str, object], message: str
    ) -> None:
        with pytest.raises(SettingsError, match=message) as refused:
            read_settings({"engine": "openai", "upstreams": self.URLS, **fields})
        assert "secret" not in str(refused.value)

    def test_one_that_is_away_is_an_error_that_names_it(self, tiny_model_folder: str) -> None:
        settings = self.settings(upstreams="http://127.0.0.1:9", upstream_start_s=0.1)
        with pytest.raises(UpstreamError, match=r"http://127\.0\.0\.1:9: .* away"):
            new_engine(settings, tiny_model_folder, "decoder-0")

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"upstream_model": "other"}, "no model other, but model; set upstream_model"),
            ({}, "another tokenizer than the configured model"),
            ({"upstream_api_key": "a-wrong-key"}, "wants a key, or another one; set PLATO_UPSTREA"),
        ],
    )
    async def test_they_are_checked_before_anything_starts(
        self, fields: dict[str, object], message: str, tiny_model_folder: str
    ) -> None:
        server = ScriptedServer(key="right" if "upstream_api_key" in fields else None)
        await server.http.start()
        settings = self.settings(upstreams=server.http.url, **fields)
        with pytest.raises(ModelError, match=rf"{server.http.url}: .*{message}") as refused:
            await asyncio.to_thread(check_upstreams, settings, tiny_model_folder)
        assert "a-wrong-key" not in str(refused.value)
        await server.http.stop()


def test_what_is_lost_on_an_engine_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(engine=f"{__name__}:make_engine")
    with caplog.at_level("INFO", "plato"):
        new_engine(settings, "folder", "decoder-7")
    assert not caplog.records
    lossy = SimpleNamespace(capabilities=replace(BUILT_IN, pins=False))
    with caplog.at_level("INFO", "plato"), patch(f"{__name__}.ENGINE", lossy):
        new_engine(settings, "folder", "decoder-7")
    assert "decoder-7: KV that a run needs again may be evicted" in caplog.text

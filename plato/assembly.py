"""Creates components from settings, for the runtime and the deployments."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from plato.api.access.tenants import refuse_shared_cache
from plato.context import ContextStore, MemoryContextStore
from plato.context.cluster import refuse_cluster
from plato.context.keys import Keys
from plato.context.redis import RedisContextStore
from plato.engine import DecoderPool, Engine, EngineError, Prompt, fingerprint, losses
from plato.engine.tokenizer_config import TokenizerConfig, context_length
from plato.errors import ModelError, SettingsError
from plato.metrics import NO_METRICS, Recorder
from plato.models.adapter import find_adapter
from plato.planning.cache import PlanCache
from plato.planning.planner import ModelPlanner
from plato.planning.prompt import PlanningPrompts
from plato.planning.protocol import Planner
from plato.prompting.model_tools import ModelTools
from plato.scheduling.placement import KVAware, Policy
from plato.scheduling.scheduler import GraphScheduler
from plato.settings import UPSTREAM_ENGINE, VLLM_ENGINE, Settings

if TYPE_CHECKING:
    # Processes without an engine do not import torch (600 MB, seconds); OpenTelemetry is optional.
    from plato.engine.openai import Connection, UpstreamConfig
    from plato.engine.torch import TorchEngineConfig
    from plato.engine.vllm import VllmConfig
    from plato.tracing.tracing import Tracing

logger = logging.getLogger(__name__)

EngineFactory = Callable[[Settings, str, str], Engine]
"""Creates the engine of one decoder from settings, model folder and replica name."""

APP_NAME = "plato"
"""Name of the application, unless Serve knows it by another."""
EQUAL_WORK = "plato.testing.equal_work"


def engine_threads(settings: Settings) -> int:
    """Threads of one decoder's engine; by default the decoders share the machine's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return settings.decoder_threads or max(1, (cores or 1) // settings.decoder_count)


def engine_config(
    settings: Settings, folder: str, name: str, tokenizer: TokenizerConfig | None = None
) -> TorchEngineConfig:
    """Configuration of one decoder's built-in engine; `tokenizer` is that of the model."""
    from plato.engine.torch import TorchEngineConfig

    return TorchEngineConfig(
        model_folder=folder,
        adapter=find_adapter(settings),
        tokenizer=tokenizer,
        cache_dir=settings.cache_dir,
        name=name,
        device=settings.device,
        dtype=settings.dtype,
        kv_budget_bytes=settings.kv_budget_mb << 20,
        max_sequences=settings.max_sequences,
        max_waiting=settings.max_waiting,
        prefill_chunk=settings.prefill_chunk,
        branch_slowdown=settings.branch_slowdown,
        token_target_s=settings.token_target_s,
        threads=engine_threads(settings),
    )


def vllm_config(
    settings: Settings, folder: str, name: str, tokenizer: TokenizerConfig
) -> VllmConfig:
    """Configuration of one decoder's vLLM."""
    from plato.engine.vllm import VllmConfig

    adapter = find_adapter(settings)
    return VllmConfig(
        model_folder=folder,
        tokenizer=tokenizer,
        name=name,
        fingerprint=fingerprint(folder, settings.dtype, adapter),
        adapter=adapter,
        base_fingerprint=fingerprint(folder, settings.dtype),
        dtype=settings.dtype,
        tensor_parallel_size=settings.tensor_parallel_size,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        options=settings.engine_options,
        kv_budget_bytes=settings.kv_budget_mb << 20,
        max_sequences=settings.max_sequences,
        max_waiting=settings.max_waiting,
    )


def upstream_config(
    settings: Settings, folder: str, name: str, tokenizer: TokenizerConfig, index: int
) -> UpstreamConfig:
    """Configuration of the decoder that is the server number `index`. Raises `SettingsError`."""
    from plato.engine.openai import UpstreamConfig

    return UpstreamConfig(
        url=settings.upstreams[index % len(settings.upstreams)],
        tokenizer=tokenizer,
        name=name,
        fingerprint=fingerprint(folder, settings.dtype, find_adapter(settings), weights=False),
        dialect=settings.upstream_dialect,
        model=settings.upstream_model,
        context_length=context_length(folder),
        key=settings.upstream_key(),
        grammar=settings.upstream_grammar,
        priority=settings.upstream_priority,
        max_sequences=settings.max_sequences,
        max_waiting=settings.max_waiting,
        start_s=settings.upstream_start_s,
        answer_s=settings.node_deadline_s,
    )


def new_engine(
    settings: Settings,
    folder: str,
    name: str,
    tokenizer: TokenizerConfig | None = None,
    index: int = 0,
) -> Engine:
    """Create the engine of one decoder; takes seconds. Logs what is lost on it.

    `tokenizer` is the model's, if this process has loaded it already, and `index` the number of
    this decoder among all. Raises `EngineError` if the model cannot be loaded, `SettingsError` if
    there is no such engine, or it cannot separate the configured tenants.
    """
    engine = _engine(settings, folder, name, tokenizer, index)
    refuse_shared_cache(settings, engine.capabilities)
    for lost in losses(engine.capabilities):
        logger.info("engine %s of %s: %s", settings.engine, name, lost)
    return engine


def _engine(
    settings: Settings, folder: str, name: str, tokenizer: TokenizerConfig | None, index: int
) -> Engine:
    if settings.engine == "torch":
        from plato.engine.torch import TorchEngine

        return TorchEngine(engine_config(settings, folder, name, tokenizer))
    if settings.engine == VLLM_ENGINE:
        from plato.engine.vllm import VllmEngine

        tokenizer = tokenizer or TokenizerConfig.load(folder)
        return VllmEngine(vllm_config(settings, folder, name, tokenizer))
    if settings.engine == UPSTREAM_ENGINE:
        from plato.engine.openai import UpstreamEngine

        tokenizer = tokenizer or TokenizerConfig.load(folder)
        return UpstreamEngine(upstream_config(settings, folder, name, tokenizer, index))
    factory: EngineFactory = _imported(
        "engine", settings.engine, f"torch, {VLLM_ENGINE} or {UPSTREAM_ENGINE}"
    )
    return factory(settings, folder, name)


def check_upstreams(settings: Settings, folder: str) -> list[Connection]:
    """Wait until the configured servers answer, and compare them with the model in `folder`.

    Returns what was found at each. Raises `ModelError` for one that does not answer in time, wants
    another key, is of an unknown kind or has another model, and `SettingsError` if the file of the
    key cannot be read, or the servers cannot separate the configured tenants.
    """
    from plato.engine.openai import connect_at_start

    tokenizer = TokenizerConfig.load(folder)
    configs = [
        upstream_config(settings, folder, "check", tokenizer, index)
        for index in range(len(settings.upstreams))
    ]

    async def connect_all() -> list[Connection]:
        return await asyncio.gather(*map(connect_at_start, configs))

    try:
        connections = asyncio.run(connect_all())
    except EngineError as error:
        raise ModelError(f"the model {settings.model}: {error}") from error
    for connection in connections:
        refuse_shared_cache(settings, connection.capabilities)
    return connections


async def open_store(
    settings: Settings, fingerprint: str, *, url: str | None = None, app: str = APP_NAME
) -> ContextStore:
    """The context store at `url`, else at the configured one, else in this process's memory.

    `fingerprint` is of the model, and `app` the name of the application, which separates it from
    others in the same store unless there is a setting for that.

    Raises `SettingsError` if the URL is invalid, or of a Redis Cluster.
    """
    url = url or settings.redis_url
    if url is None:
        return MemoryContextStore(quota_bytes=settings.tenant_store_mb << 20)
    store = RedisContextStore(
        url,
        Keys(settings.namespace or app, fingerprint),
        timeout_s=settings.redis_timeout_s,
        ttl_s=settings.redis_ttl_s,
        quota_bytes=settings.tenant_store_mb << 20,
    )
    await asyncio.to_thread(refuse_cluster, url)
    return store


def new_policy(settings: Settings) -> Policy:
    """The configured placement policy. Raises `SettingsError`."""
    if settings.placement == "kv_aware":
        # vLLM and servers of others do not give their KV away.
        keeps = settings.engine in (VLLM_ENGINE, UPSTREAM_ENGINE)
        return KVAware(None if keeps else settings.move_cost)
    policy: Policy = _imported("placement", settings.placement, "kv_aware")()
    return policy


def _imported(setting: str, path: str, built_in: str) -> Any:
    """Import `path` (`package.module:name`). Raises `SettingsError`."""
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{setting} is {path!r}, which cannot be imported ({error}); write {built_in}, or "
            "package.module:name"
        ) from error


def public_prompts(tools: ModelTools) -> tuple[Prompt, ...]:
    """Prefixes that the prompts of all tenants share."""
    planning = PlanningPrompts.of(
        tools.tokenizer,
        tools.template,
        tools.fingerprint,
        examples=tools.calibration.examples,
    )
    prefixes = (*planning.public, *tools.layout.public_prefixes())
    return tuple(prefix for prefix in prefixes if len(prefix))


def new_planner(settings: Settings, tools: ModelTools, pool: DecoderPool) -> Planner:
    """A planner over `pool`, which keeps plans if the settings say so."""
    planner = new_model_planner(settings, tools, pool)
    return PlanCache(planner, settings.plan_cache) if settings.plan_cache else planner


def new_model_planner(settings: Settings, tools: ModelTools, pool: DecoderPool) -> ModelPlanner:
    """A planner over `pool` that has the model write every plan."""
    kind = ModelPlanner
    if settings.equal_work:
        # Imported only on demand: production code must not depend on benchmark code.
        name = "SpelledPlanner" if settings.upstreams else "ScriptedPlanner"
        kind = _imported("planner", f"{EQUAL_WORK}:{name}", "model")
    return kind(
        pool,
        tools.tokenizer,
        tools.template,
        max_title_words=settings.max_title_words,
        calibration=tools.calibration,
        fingerprint=tools.fingerprint,
    )


def new_scheduler(
    settings: Settings,
    model: ModelTools,
    *,
    planner: Planner,
    pool: DecoderPool,
    store: ContextStore,
    name: str,
    recorder: Recorder = NO_METRICS,
    losses: tuple[str, ...] = (),
    tracing: Tracing | None = None,
) -> GraphScheduler:
    """A scheduler over a planner, a pool and a store; `losses` are those of the engines."""
    return GraphScheduler(
        settings,
        model,
        planner=planner,
        pool=pool,
        store=store,
        policy=new_policy(settings),
        name=name,
        recorder=recorder,
        losses=losses,
        observer=tracing.observe if tracing is not None else None,
    )

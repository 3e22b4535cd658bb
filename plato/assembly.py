"""From settings to parts: what the runtime and the deployments both put together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module

from plato.context.protocol import ContextStore
from plato.engine import Prompt
from plato.engine.torch.config import TorchEngineConfig
from plato.errors import ModelError, SettingsError
from plato.metrics import NO_METRICS, Recorder
from plato.models import resolve_model
from plato.planning.planner import ModelPlanner
from plato.planning.prompt import PlanningPrompt
from plato.planning.protocol import Planner
from plato.prompting.template import ChatTemplate
from plato.prompting.tokenizer import Tokenizer
from plato.prompting.transcript import TranscriptLayout
from plato.scheduling.config import SchedulerConfig
from plato.scheduling.placement import KVAware, Policy
from plato.scheduling.protocol import DecoderPool
from plato.scheduling.scheduler import GraphScheduler
from plato.settings import Settings

HIDDEN_INTERVALS = 2.5
"""Parts whose text waits for that of earlier ones send less often by this factor."""


@dataclass(frozen=True)
class ModelTools:
    """What speaks a model's language without running it."""

    folder: str
    tokenizer: Tokenizer
    template: ChatTemplate
    context_length: int

    @classmethod
    def load(cls, settings: Settings) -> ModelTools:
        """Fetch the model if need be, and load its tokenizer. Raises `ModelError`."""
        from transformers import AutoConfig

        folder = str(resolve_model(settings.model, settings.cache_dir))
        tokenizer = Tokenizer.load(folder)
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
            context_length = config.max_position_embeddings
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(
                f"the configuration in {folder} is none that can be served ({error}); "
                "choose a causal language model that transformers knows"
            ) from error
        return cls(folder, tokenizer, ChatTemplate(tokenizer), context_length)

    @property
    def layout(self) -> TranscriptLayout:
        """The prompt layout for this model."""
        return TranscriptLayout(self.tokenizer, self.template, self.context_length)

    def text(self, tokens: tuple[int, ...]) -> str:
        """Output tokens as text."""
        return self.tokenizer.decode(tokens)

    def prompt_text(self, tokens: tuple[int, ...]) -> str:
        """Prompt tokens as text, markup included."""
        return self.tokenizer.decode(tokens, special=True)


def engine_threads(settings: Settings) -> int:
    """Threads of one decoder's engine: this machine's cores, shared by the decoders."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return settings.decoder_threads or max(1, (cores or 1) // settings.decoders)


def engine_config(settings: Settings, folder: str, name: str) -> TorchEngineConfig:
    """The engine of one decoder."""
    return TorchEngineConfig(
        model_folder=folder,
        name=name,
        device=settings.device,
        dtype=settings.dtype,
        kv_budget_bytes=settings.kv_budget_mb << 20,
        max_sequences=settings.max_sequences,
        max_waiting=settings.max_waiting,
        prefill_chunk=settings.prefill_chunk,
        threads=engine_threads(settings),
        pace=settings.pace,
        reuse="reuse" not in settings.without,
        forced_tokens="forced_tokens" not in settings.without,
    )


def public_prompts(settings: Settings, tools: ModelTools) -> tuple[Prompt, ...]:
    """What all questions' prompts begin with, whoever asks them."""
    planning = PlanningPrompt(tools.tokenizer, tools.template).public
    return tuple(prompt for prompt in (planning, tools.layout.public_prefix()) if len(prompt))


def new_planner(settings: Settings, tools: ModelTools, pool: DecoderPool) -> ModelPlanner:
    """A planner over `pool`."""
    return ModelPlanner(
        pool,
        tools.tokenizer,
        tools.template,
        max_title_chars=settings.max_title_chars,
        split_threshold=settings.split_threshold,
    )


def new_policy(settings: Settings) -> Policy:
    """The placement policy that the settings name. Raises `SettingsError`."""
    if settings.placement == "kv_aware":
        return KVAware(settings.move_cost)
    module, _, name = settings.placement.partition(":")
    try:
        factory = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"placement is {settings.placement!r}, which cannot be imported ({error}); write "
            "kv_aware, or package.module:name of a callable that returns a policy"
        ) from error
    policy: Policy = factory()
    return policy


def new_scheduler(
    settings: Settings,
    tools: ModelTools,
    *,
    planner: Planner,
    pool: DecoderPool,
    store: ContextStore,
    name: str,
    recorder: Recorder = NO_METRICS,
) -> GraphScheduler:
    """A scheduler over a planner, a pool and a store."""
    config = SchedulerConfig(
        node_max_tokens=settings.node_max_tokens,
        sequential_max_tokens=settings.sequential_max_tokens,
        context_length=tools.context_length,
        plan_deadline_s=settings.plan_deadline_s,
        node_deadline_s=settings.node_deadline_s,
        run_deadline_s=settings.run_deadline_s,
        lease_ttl_s=settings.lease_ttl_s,
        silence_s=settings.silence_s,
        node_attempts=settings.node_attempts,
        max_runs=settings.max_runs,
        max_waiting_runs=settings.max_waiting_runs,
        patience_s=settings.patience_s,
        ownership_ttl_s=settings.ownership_ttl_s,
        group_s=settings.stream_interval_s,
        hidden_group_s=HIDDEN_INTERVALS * settings.stream_interval_s,
    )
    return GraphScheduler(
        config=config,
        layout=tools.layout,
        planner=planner,
        pool=pool,
        store=store,
        decode_prompt=tools.prompt_text,
        decode_output=tools.text,
        policy=new_policy(settings),
        name=name,
        recorder=recorder,
    )

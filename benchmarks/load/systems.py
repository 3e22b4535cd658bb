"""What is asked: an engine in this process, paced engines, or a server."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from benchmarks.answering.asking import (
    AUTO,
    PLATO,
    SEQUENTIAL,
    Answered,
    Asker,
    RuntimeAsker,
    ServedModel,
    Way,
    http_asker,
)
from benchmarks.answering.questions import Question
from benchmarks.common.report import RESULTS
from plato.assembly import engine_config
from plato.engine import Engine
from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.engine.torch.attention import Rows
from plato.engine.torch.pool import KVPool
from plato.runtime import Runtime
from plato.settings import Settings
from plato.testing.paced import VOCABULARY, Pace, PacedModel

API_KEY = "PLATO_API_KEY"
"""Environment variable with the key of a server."""
WAYS = (SEQUENTIAL, PLATO, AUTO)
ANSWER_DEADLINE_S = 300.0
GPU_KV_BYTES_PER_TOKEN = 131_072
"""Of the model that `benchmarks.gpu` measures, in bfloat16."""
GPU_KV_MB = 32_768
RUNS_AT_ONCE = 4
"""Runs in flight for each sequence of a full batch: 64 for one decoder, the default."""


@dataclass(frozen=True, slots=True)
class System:
    """Something that answers questions."""

    model: str
    asker: Asker
    ways: tuple[Way, ...]
    at_once: int
    """Questions at a time that fill it."""
    equal_work: bool
    """Whether answers have exactly the length that is asked for."""


def settings_of(**values: Any) -> Settings:
    """Of a system in this process; what `values` leave out comes from the environment."""
    settings = Settings(
        plan_deadline_s=ANSWER_DEADLINE_S,
        node_deadline_s=ANSWER_DEADLINE_S,
        run_deadline_s=ANSWER_DEADLINE_S,
        # Every long question is fit for splitting: what `auto` decides, it decides by the load.
        split_threshold=1.0,
        equal_work=True,
        **values,
    )
    return settings.model_copy(update={"max_runs": RUNS_AT_ONCE * _at_once(settings)})


def paced(decoders: int, report: Path = RESULTS / "gpu.json") -> Settings:
    """The same with engines that sleep for the step times in a report of `benchmarks.gpu`."""
    pace = gpu_pace(report)
    return settings_of(
        engine=f"{__name__}:paced_engine",
        engine_options={"pace": asdict(pace)},
        decoders=decoders,
        decoder_threads=1,
        max_sequences=pace.step_ms[-1][0],
        kv_budget_mb=GPU_KV_MB,
    )


def gpu_pace(report: Path) -> Pace:
    """The speed in a report of `benchmarks.gpu`."""
    rows = json.loads(report.read_text("utf-8"))["rows"]
    steps = sorted((row["width"], row["step_ms"]) for row in rows if row["part"] == "step")
    # A wider step is never faster: where it seems so, the narrower one was disturbed.
    times = [*accumulate((ms for _, ms in reversed(steps)), min)][::-1]
    return Pace(
        step_ms=tuple(zip((width for width, _ in steps), times, strict=True)),
        prefill_tokens_per_s=max(row["tokens_per_s"] for row in rows if row["part"] == "prefill"),
        kv_bytes_per_token=GPU_KV_BYTES_PER_TOKEN,
    )


def _at_once(settings: Settings) -> int:
    return settings.max_sequences * settings.decoder_count


class _Askers:
    """One system for most ways, and others for some."""

    def __init__(self, usual: Asker, others: Mapping[Way, Asker]) -> None:
        self._usual = usual
        self._others = others

    async def ask(self, question: Question, way: Way) -> Answered:
        """See `Asker.ask`."""
        return await self._others.get(way, self._usual).ask(question, way)


@asynccontextmanager
async def in_process(settings: Settings) -> AsyncIterator[System]:
    """A runtime in this process; with the way `plato`, branches start at once."""
    async with await Runtime.open(settings) as runtime:
        eager = settings.model_copy(update={"branch_slowdown": None})
        other = Runtime(eager, runtime.tools, runtime.engines)
        try:
            asker = _Askers(RuntimeAsker(runtime, settings), {PLATO: RuntimeAsker(other, eager)})
            yield System(settings.model_name, asker, WAYS, _at_once(settings), equal_work=True)
        finally:
            await other.scheduler.close()


@asynccontextmanager
async def served(url: str, model: str | None, at_once: int) -> AsyncIterator[System]:
    """A server. One that is not Plato knows one way only, and ends its answers where it wants.

    Raises `RuntimeError` if it does not list its models.
    """
    key = os.environ.get(API_KEY)
    found = await ServedModel.find(url, key)
    name = model or found.name
    async with http_asker(url, name, plato=found.plato, api_key=key) as asker:
        ways = WAYS if found.plato else (SEQUENTIAL,)
        yield System(name, asker, ways, at_once, equal_work=found.plato)


def paced_engine(settings: Settings, folder: str, name: str) -> Engine:
    """An engine factory for `Settings.engine`, like that of `plato.testing.paced`; it can plan."""
    pace = TypeAdapter(Pace).validate_python(settings.engine_options.get("pace", {}))
    return TorchEngine(engine_config(settings, folder, name), load=partial(_PlanningModel, pace))


class _PlanningModel(PacedModel):
    """Has logits for all tokens of its tokenizer, which plans and decisions are made of."""

    def __init__(self, pace: Pace, config: TorchEngineConfig) -> None:
        super().__init__(config, pace)
        self.vocabulary = self.tokenizer.backend.get_vocab_size()

    def forward(
        self, pool: KVPool, tokens: list[int], rows: list[Rows], wanted: list[int]
    ) -> torch.Tensor:
        """See `PacedModel.forward`."""
        logits = super().forward(pool, tokens, rows, wanted)
        return torch.nn.functional.pad(logits, (0, self.vocabulary - VOCABULARY))

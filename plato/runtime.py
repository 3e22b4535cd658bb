"""The whole pipeline in one process, without Ray: for embedding, tests and GPU benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Self

from plato.api.health import readiness
from plato.api.questions.requests import to_run_request, validate_request
from plato.assembly import new_engine, new_planner, new_scheduler
from plato.context import ContextStore, MemoryContextStore
from plato.engine import (
    Chunk,
    DecoderPool,
    Engine,
    EngineClosedError,
    EngineError,
    GenerateRequest,
    KVEventBatch,
    Replica,
    ReplicaStatus,
    losses,
    replica_status,
)
from plato.errors import ModelError, UnavailableError
from plato.kv_transfer import KVTransfer
from plato.metrics import NO_METRICS, Recorder
from plato.metrics.recording import AnswerTimer, StoreSampler
from plato.planning.protocol import Planner
from plato.prompting.model_tools import ModelTools
from plato.runs import Answer, Message, RunEvents, RunPage, RunRequest, RunSnapshot, RunState
from plato.scheduling.scheduler import GraphScheduler
from plato.scheduling.stats import SchedulerSampler
from plato.settings import Settings
from plato.tracing import open_tracing

NAME = "runtime"


class LocalPool:
    """A `DecoderPool` of engines in this process."""

    remote = False

    def __init__(self, engines: dict[str, Engine], recorder: Recorder = NO_METRICS) -> None:
        self._engines = engines
        self._transfers = {engine: KVTransfer(engine, recorder) for engine in engines.values()}

    def replicas(self) -> tuple[Replica, ...]:
        """One per engine."""
        return tuple(Replica(name) for name in self._engines)

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """Decode on the first of `ranked`, or on the least loaded engine.

        A further attempt gets the next engine: the one before may fail again, and still be well.
        """
        named = [self._engines[name] for name in ranked if name in self._engines]
        engine = named[0] if named else self._choose(request.attempt)
        source = self._engines.get(request.source)
        await self._transfers[engine].before(request, source.export_kv if source else None)
        async with aclosing(engine.generate(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """Renew `owner`'s lease at one engine."""
        if replica not in self._engines:
            raise UnavailableError(f"there is no engine {replica}")
        self._engines[replica].renew(owner, ttl_s)

    async def kv_snapshot(self, replica: str) -> tuple[str, KVEventBatch]:
        """Epoch and stored prefixes of one engine."""
        engine = self._engines[replica]
        return engine.epoch, await engine.kv_snapshot()

    async def release(self, run_id: str, replica: str) -> None:
        """Drop the pins of a run at one engine."""
        if replica in self._engines:
            self._engines[replica].release(run_id)

    def _choose(self, attempt: int) -> Engine:
        engines = sorted(self._engines.values(), key=_load)
        decoding = [engine for engine in engines if not _load(engine)[0]] or engines
        return decoding[attempt % len(decoding)]


def _load(engine: Engine) -> tuple[bool, int]:
    """Sort key: what decodes nothing now last, then by load."""
    try:
        stats = engine.stats()
    except EngineClosedError:
        return True, 0
    away = not stats.available or bool(stats.problem)
    return away, stats.load.running + stats.load.waiting


def losses_of(engines: Iterable[Engine]) -> tuple[str, ...]:
    """What is lost on any of several engines."""
    lost = [clause for engine in engines for clause in losses(engine.capabilities)]
    return tuple(dict.fromkeys(lost))


class LocalRunService:
    """A scheduler in this process: implements `plato.api.service.RunService`."""

    def __init__(
        self, scheduler: GraphScheduler, engines: dict[str, Engine], tools: ModelTools
    ) -> None:
        self._scheduler = scheduler
        self._engines = engines
        self.context_length = tools.context_length
        self.fingerprint = tools.fingerprint
        self.sampling = tools.sampling
        self.thinks = tools.template.thinks

    async def answer(self, state: RunState) -> AsyncGenerator[RunEvents]:
        """Drive the run, and feed `state`."""
        async with aclosing(self._scheduler.run(state.request)) as batches:
            async for events in batches:
                for event in events:
                    state.feed(event)
                yield events

    async def open(self, request: RunRequest) -> None:
        """Start a detached run."""
        await self._scheduler.open(request)

    def events(self, request: RunRequest) -> AsyncGenerator[RunEvents]:
        """Follow a detached run."""
        return self._scheduler.runs.follow(request.tenant, request.run_id)

    async def snapshot(self, tenant: str, run_id: str) -> RunSnapshot:
        """The current state of a run."""
        return await self._scheduler.runs.snapshot(tenant, run_id)

    async def overviews(
        self, tenant: str, before: str | None, limit: int, status: str | None
    ) -> RunPage:
        """The newest runs of a tenant."""
        return await self._scheduler.runs.overviews(tenant, before, limit, status)

    async def cancel(self, tenant: str, run_id: str) -> None:
        """Cancel a run."""
        if await self._scheduler.runs.cancel(tenant, run_id):
            return
        owner = await self._scheduler.runs.owner(tenant, run_id)
        if owner is not None:
            raise UnavailableError(
                f"another server ({owner}) on the same store drives run {run_id}; cancel it there"
            )

    async def ready(self) -> dict[str, object]:
        """The state of the engines and the scheduler. Raises if no engine decodes."""
        return {**readiness(await self.decoders()), "runs": len(self._scheduler.runs)}

    async def decoders(self) -> tuple[ReplicaStatus, ...]:
        """The engines."""
        found = []
        for name, engine in self._engines.items():
            try:
                found.append(replica_status(name, engine.stats()))
            except EngineClosedError as error:
                found.append(replica_status(name, error))
        return tuple(found)


class Runtime:
    """Answers questions in this process.

    Use it as an asynchronous context manager:

        async with await Runtime.open(Settings()) as runtime:
            answer = await runtime.ask("How do I choose my first road bicycle?")
    """

    def __init__(
        self,
        settings: Settings,
        tools: ModelTools,
        engines: dict[str, Engine],
        store: ContextStore | None = None,
        recorder: Recorder = NO_METRICS,
        pool: DecoderPool | None = None,
        planner: Planner | None = None,
    ) -> None:
        """Assemble a runtime from components; `open` creates them from settings.

        `pool` and `planner` replace the built-in ones over `engines`.
        """
        self._recorder = recorder
        self.settings = settings
        self.tools = tools
        self.engines = engines
        self._store = store or MemoryContextStore()
        self.tracing = open_tracing(settings, NAME)
        pool = pool or LocalPool(engines, recorder)
        self.scheduler = new_scheduler(
            settings,
            tools,
            planner=planner or new_planner(settings, tools, pool),
            pool=pool,
            store=self._store,
            name=NAME,
            recorder=recorder,
            losses=losses_of(engines.values()),
            tracing=self.tracing,
        )
        self.service = LocalRunService(self.scheduler, engines, tools)
        """For `plato.api.app.new_app`."""

    @classmethod
    async def open(
        cls, settings: Settings, store: ContextStore | None = None, recorder: Recorder = NO_METRICS
    ) -> Self:
        """Create the engines, one per decoder; takes seconds. Raises `ModelError`."""
        tools = await asyncio.to_thread(ModelTools.load, settings)
        engines: dict[str, Engine] = {}
        try:
            for index in range(settings.decoder_count):
                name = f"local-{index}"
                engines[name] = await asyncio.to_thread(
                    new_engine, settings, tools.folder, name, tools.tokenizer.config, index
                )
            return cls(settings, tools, engines, store, recorder)
        except BaseException as error:
            for engine in engines.values():
                await engine.close()
            if isinstance(error, EngineError):
                raise ModelError(f"the model {settings.model}: {error}") from error
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop the scheduler, the store and the engines, and send the last spans. Idempotent."""
        await self.scheduler.close()
        if self.tracing is not None:
            await self.tracing.close()
        await self._store.close()
        for engine in self.engines.values():
            await engine.close()

    def samplers(self, recorder: Recorder) -> tuple[Callable[[], None], ...]:
        """Record the state of the scheduler and the store; for `plato.metrics.sampling.sample`."""
        return (
            SchedulerSampler(recorder, self.scheduler.stats),
            StoreSampler(recorder, lambda: self._store.available),
        )

    def run(self, request: RunRequest) -> AsyncGenerator[RunEvents]:
        """Answer one question, event by event; closing the generator cancels it."""
        return self.scheduler.run(request)

    async def ask(self, question: str | Sequence[Message], **options: Any) -> Answer:
        """Answer a question, and return the complete answer.

        `options` are fields of a chat completion request, including `plato`, with the defaults
        and limits of the settings. Raises a `PlatoError` if they are invalid or the run fails.
        """
        messages = [Message("user", question)] if isinstance(question, str) else question
        body = validate_request(
            {"model": self.settings.model_name, "messages": messages, **options}
        )
        state = RunState(
            to_run_request(
                body,
                settings=self.settings,
                context_length=self.tools.context_length,
                sampling=self.tools.sampling,
            )
        )
        timer = AnswerTimer(state, self._recorder)
        async with aclosing(self.service.answer(state)) as batches:
            async for events in batches:
                timer.observe(events)
        return state.answer()

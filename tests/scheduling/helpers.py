"""Questions in short, planners and decoders that do what a test says, and runs being watched."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from plato.engine import (
    Chunk,
    DecoderPool,
    FinishReason,
    GenerateRequest,
    KVEventBatch,
    Load,
    Replica,
    SamplingParams,
)
from plato.planning.protocol import (
    PlanEnded,
    PlanEvent,
    PlanLine,
    PlanRequest,
    PlanStarted,
    PlanUsage,
)
from plato.prompting.model_tools import ModelTools
from plato.runs import (
    Event,
    Message,
    Mode,
    Node,
    NodeOutput,
    NodeQueued,
    NodeReport,
    RunEvent,
    RunFailed,
    RunFinished,
    RunReport,
    RunRequest,
)
from plato.runtime import LocalPool
from plato.scheduling.scheduler import GraphScheduler

DEADLINE_S = 10.0
"""For what happens at once unless something is broken."""

E = TypeVar("E", bound=Event)

_numbers = itertools.count(1)


def question(mode: Mode = Mode.PLATO, **fields: Any) -> RunRequest:
    """A run of its own."""
    defaults: dict[str, Any] = {
        "messages": (Message("user", "Which sea is the saltiest?"),),
        "sampling": SamplingParams(),
        "max_nodes": 8,
        "deadline_s": 300.0,
    }
    return RunRequest(run_id=f"run-{next(_numbers)}", mode=mode, **{**defaults, **fields})


def parts(*needs: tuple[int, ...], max_tokens: int | None = None) -> tuple[Node, ...]:
    """A plan; one tuple of dependencies for each part."""
    return tuple(
        Node(number, f"Part {number}", dependencies, max_tokens)
        for number, dependencies in enumerate(needs, start=1)
    )


DIAMOND = ((), (1,), (1,), (2, 3))


class ScriptedPlanner:
    """Plays a script: a node is a line, an event is waited for, an exception raised.

    Ends like a whole plan, unless the script ends in a `PlanEnded` of its own.
    """

    def __init__(self, *script: Node | asyncio.Event | BaseException | PlanEnded) -> None:
        self._script = script
        self.requests: list[PlanRequest] = []
        self.closed = False

    async def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent]:
        """Play the script."""
        self.requests.append(request)
        try:
            yield PlanStarted("planner", "epoch")
            for step in self._script:
                match step:
                    case Node():
                        yield PlanLine(step)
                    case asyncio.Event():
                        await step.wait()
                    case BaseException():
                        raise step
                    case PlanEnded():
                        yield step
                        return
            yield ended()
        finally:
            self.closed = True


def ended(*, split: bool = True, reason: str | None = None, probability: float = 0.1) -> PlanEnded:
    """The end of a plan of 30 tokens."""
    usage = PlanUsage(
        tokens=30, steps=20, prompt_tokens=100, cached_tokens=60, one_probability=probability
    )
    return PlanEnded(split, usage, reason)


class ScriptedPool:
    """Decoders that write `Text N.` for part N, when a test lets them."""

    remote = True

    def __init__(self, tools: ModelTools) -> None:
        self._tools = tools
        self._held: dict[int, asyncio.Event] = {}
        self.requests: list[GenerateRequest] = []
        self.live: set[int] = set()
        self.released: list[tuple[str, str]] = []
        """(run, replica) of every release."""
        self.release_error: Exception | None = None
        """What a release raises."""
        self.load = Load()
        """What every chunk reports."""

    def hold(self, *nodes: int) -> None:
        """Let these wait before their first token."""
        self._held |= {node: asyncio.Event() for node in nodes}

    def resume(self, *nodes: int) -> None:
        """Let them go on."""
        for node in nodes:
            self._held[node].set()

    @property
    def started(self) -> list[int]:
        """Parts in the order in which they came."""
        return [request.node for request in self.requests]

    def replicas(self) -> tuple[Replica, ...]:
        """One."""
        return (Replica("scripted"),)

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """An acknowledgement, and the text token by token."""
        self.requests.append(request)
        self.live.add(request.node)
        prompt = len(request.prompt)

        def chunk(offset: int, tokens: tuple[int, ...], **fields: Any) -> Chunk:
            text = self._tools.text(tokens)
            return Chunk(
                run_id=request.run_id,
                node=request.node,
                attempt=request.attempt,
                offset=offset,
                tokens=tokens,
                text=text,
                prompt_tokens=prompt,
                replica="scripted",
                epoch="epoch",
                load=self.load,
                **fields,
            )

        try:
            yield chunk(0, ())
            if request.node in self._held:
                await self._held[request.node].wait()
            tokens = self._tools.tokenizer.text(f"Text {request.node}.")
            for offset, token in enumerate(tokens):
                yield chunk(offset, (token,))
            yield chunk(len(tokens), (), finish=FinishReason.STOP)
        finally:
            self.live.discard(request.node)

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """Nothing to renew."""

    async def kv_snapshot(self, replica: str) -> tuple[str, KVEventBatch]:
        """Nothing."""
        return "epoch", KVEventBatch(0, snapshot=True)

    async def release(self, run_id: str, replica: str) -> None:
        """Notes it."""
        self.released.append((run_id, replica))
        if self.release_error is not None:
            raise self.release_error


class FaultyPool:
    """Another pool, some nodes of which fail after their first tokens."""

    remote = True

    def __init__(self, pool: DecoderPool, faults: dict[int, BaseException]) -> None:
        self._pool = pool
        self._faults = faults

    def replicas(self) -> tuple[Replica, ...]:
        """The other pool's."""
        return self._pool.replicas()

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """The other pool's chunks up to the fault."""
        async with aclosing(self._pool.generate(request, ranked)) as chunks:
            async for chunk in chunks:
                yield chunk
                if chunk.tokens and request.node in self._faults:
                    raise self._faults[request.node]

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """The other pool's."""
        await self._pool.renew(owner, ttl_s, replica)

    async def kv_snapshot(self, replica: str) -> tuple[str, KVEventBatch]:
        """The other pool's."""
        return await self._pool.kv_snapshot(replica)

    async def release(self, run_id: str, replica: str) -> None:
        """The other pool's."""
        await self._pool.release(run_id, replica)


class RemotePool(LocalPool):
    """Engines of this process that count as being in others: they need leases."""

    remote = True


class Watched:
    """The events of a run so far."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []
        self._news = asyncio.Condition()

    async def take(self, batches: AsyncGenerator[tuple[RunEvent, ...]]) -> None:
        """Follow the run to its end."""
        async with aclosing(batches):
            async for batch in batches:
                async with self._news:
                    self.events += batch
                    self._news.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the events so far fulfil `condition`."""
        async with asyncio.timeout(DEADLINE_S), self._news:
            await self._news.wait_for(condition)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind."""
        return of(kind, self.events)

    @property
    def started(self) -> list[int]:
        """The parts that were dispatched."""
        return [event.number for event in self.of(NodeQueued)]

    @property
    def report(self) -> RunReport:
        """The report of a run that ended well."""
        return finished(self.events)


@asynccontextmanager
async def watching(scheduler: GraphScheduler, request: RunRequest) -> AsyncIterator[Watched]:
    """Follow a run in the background; it ends well within the context, or is cancelled."""
    watched = Watched()
    task = asyncio.create_task(watched.take(scheduler.run(request)))
    try:
        yield watched
        await asyncio.wait_for(task, DEADLINE_S)
    finally:
        task.cancel()
        await asyncio.wait([task])


async def collect(scheduler: GraphScheduler, request: RunRequest) -> list[RunEvent]:
    """All events of a run."""
    watched = Watched()
    await asyncio.wait_for(watched.take(scheduler.run(request)), DEADLINE_S)
    return watched.events


def of(kind: type[E], events: list[RunEvent]) -> list[E]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def finished(events: list[RunEvent]) -> RunReport:
    """The report of a run that ended well."""
    assert isinstance(events[-1], RunFinished), events[-1]
    return events[-1].report


def failed(events: list[RunEvent]) -> RunFailed:
    """The end of a run that failed."""
    assert isinstance(events[-1], RunFailed), events[-1]
    return events[-1]


def node(report: RunReport | None, number: int) -> NodeReport:
    """What became of one part."""
    assert report is not None
    return next(node for node in report.nodes if node.number == number)


def texts(events: list[RunEvent]) -> dict[int, str]:
    """The text of every part."""
    found: dict[int, str] = {}
    for event in of(NodeOutput, events):
        found[event.number] = found.get(event.number, "") + event.node_text
    return found


async def until(condition: Callable[[], object], timeout_s: float = DEADLINE_S) -> None:
    """Wait for something that another thread brings about."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - a thread sets no asyncio.Event
            await asyncio.sleep(0.005)

"""Events in short, and whole runs as schedulers emit them."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from plato.context import MemoryContextStore, WriteBehind
from plato.engine import FinishReason, SamplingParams
from plato.runs import (
    BEFORE_ALL,
    EventId,
    Message,
    Mode,
    ModeChosen,
    Node,
    NodeFinished,
    NodeOutput,
    NodePlanned,
    NodeQueued,
    NodeReport,
    NodeStarted,
    NodeState,
    NodeStatus,
    PlanFinished,
    PlanReport,
    RunEvent,
    RunEvents,
    RunFinished,
    RunReport,
    RunRequest,
    RunState,
)
from plato.scheduling.event_log import EventLog
from plato.scheduling.ownership.journal import Journal
from plato.scheduling.ownership.lease import RunLease

RUN = "r"
STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH
PLAN = PlanReport("model", nodes=2, tokens=30, prompt_tokens=100, cached_tokens=60)
REPORT = RunReport(RUN, Mode.PLATO, Mode.PLATO, None, PLAN, (), 0, 0, 0, 3.0, SamplingParams())


def encode(text: str) -> tuple[int, ...]:
    """A byte-level tokenizer: token ids are bytes of UTF-8."""
    return tuple(text.encode())


def decode(ids: tuple[int, ...]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


def request(**fields: Any) -> RunRequest:
    asked = RunRequest(RUN, (Message("user", "Why?"),), Mode.PLATO, SamplingParams(), 8, 60.0)
    return replace(asked, **fields)


def chosen(mode: Mode = Mode.PLATO, at_s: float = 0.0, reason: str | None = None) -> ModeChosen:
    return ModeChosen(RUN, at_s, mode, reason)


def planned(number: int, title: str = "", at_s: float = 0.1, **fields: Any) -> NodePlanned:
    return NodePlanned(RUN, at_s, Node(number, title or f"Part {number}"), **fields)


def plan_finished(report: PlanReport = PLAN, reason: str | None = None) -> PlanFinished:
    return PlanFinished(RUN, 0.2, report, reason)


def report(number: int, **fields: Any) -> NodeReport:
    """Of a running node."""
    running = NodeReport(
        number, f"Part {number}", (), NodeState.RUNNING, planned_s=0.1, started_s=0.2
    )
    return replace(running, **fields)


def queued(number: int, attempt: int = 0, at_s: float = 0.2, **fields: Any) -> NodeQueued:
    waiting = report(number, attempts=attempt + 1, state=NodeState.QUEUED, **fields)
    return NodeQueued(RUN, at_s, number, attempt, waiting)


def started(number: int, attempt: int = 0, at_s: float = 0.2, **fields: Any) -> NodeStarted:
    begun = report(number, attempts=attempt + 1, **fields)
    return NodeStarted(RUN, at_s, number, attempt, begun)


def output(
    number: int, text: str, offset: int = 0, *, attempt: int = 0, at_s: float = 1.5, **fields: Any
) -> NodeOutput:
    """The tokens of `text`, from token `offset` on."""
    return NodeOutput(RUN, at_s, number, attempt, offset, encode(text), text, **fields)


def finished(
    number: int, text: str, finish: FinishReason = STOP, at_s: float = 2.0, **fields: Any
) -> NodeFinished:
    """The end of a node whose whole output is `text`."""
    done = report(
        number,
        state=NodeState.DONE,
        finished_s=at_s,
        tokens=len(encode(text)),
        finish=finish,
        **fields,
    )
    return NodeFinished(RUN, at_s, number, finish, done)


def run_finished(at_s: float = 3.0) -> RunFinished:
    return RunFinished(RUN, at_s, REPORT)


def with_ids(events: Iterable[RunEvent], term: int = 1) -> RunEvents:
    """The events with the ids that a scheduler gives them."""
    return tuple(replace(event, id=EventId(term, number)) for number, event in enumerate(events))


Parts = list[tuple[str, FinishReason]]
"""Text and finish reason of every node of an answer."""

parts_strategy = st.lists(
    st.tuples(st.text(alphabet="ab é\n#", max_size=12), st.sampled_from([STOP, STOP, LENGTH])),
    min_size=1,
    max_size=4,
)
requests = st.builds(
    request,
    headings=st.booleans(),
    max_tokens=st.none() | st.integers(1, 30),
    stop=st.lists(st.text(alphabet="ab \n#", min_size=1, max_size=4), max_size=3).map(tuple),
)
chances = st.randoms(use_true_random=False)


def cut(text: str, tokens: int) -> str:
    """The text of the first tokens, without half a character at its end."""
    return text.encode()[:tokens].decode(errors="ignore")


def node_events(
    number: int, text: str, finish: FinishReason, state: RunState, rng: random.Random
) -> list[RunEvent]:
    """What is missing of a node, in random chunks whose text may trail their tokens."""
    status = state.nodes.get(number) or NodeStatus(number)
    if status.finished is not None:
        return []
    ids, known, sent = encode(text), len(status.tokens), status.text
    bounded = state.request.max_tokens is not None
    events: list[RunEvent] = [
        begin(number, status.attempts, bounded_by_caller=bounded) for begin in (queued, started)
    ]
    cuts = sorted({known, len(ids), *(rng.randint(known, len(ids)) for _ in range(4))})
    chunks: list[NodeOutput] = []
    for start, end in pairwise(cuts):
        whole = cut(text, end)
        # An engine holds back what could begin a stop string.
        whole = whole[: max(len(sent), len(whole) - rng.randint(0, 2))]
        piece, sent = whole[len(sent) :], whole
        chunk = NodeOutput(RUN, 0.0, number, status.attempts, start, ids[start:end], piece)
        chunks.append(replace(chunk, cached_tokens=rng.randint(0, 3)))
    if status.finish is not None:
        assert status.output is not None
        chunks = [status.output]
    elif chunks and rng.random() < 0.5:
        piece = chunks[-1].node_text + text[len(sent) :]
        chunks[-1] = replace(chunks[-1], node_text=piece, finish=finish)
    else:
        # The rest of the text can come without a token.
        rest = text[len(sent) :]
        chunks.append(
            NodeOutput(RUN, 0.0, number, status.attempts, len(ids), (), rest, finish=finish)
        )
    for chunk in chunks:
        events.append(chunk)
        if rng.random() < 0.2:
            events.append(chunk)
    return [*events, finished(number, text, finish, bounded_by_caller=bounded)]


def missing_events(state: RunState, parts: Parts, rng: random.Random) -> list[RunEvent]:
    """What a scheduler that resumes from `state` emits, in a random order that can be."""
    lanes = [
        node_events(number, text, finish, state, rng)
        for number, (text, finish) in enumerate(parts, start=1)
    ]
    known = len(state.planned_nodes)
    plan: list[RunEvent] = [planned(number) for number in range(known + 1, len(parts) + 1)]
    if state.mode is None:
        plan.insert(rng.randint(0, len(plan)), chosen())
    if not state.plan_complete:
        plan.append(plan_finished())
    events: list[RunEvent] = []
    while plan or any(lanes):
        ready = [lane for lane in lanes[:known] if lane]
        if plan and (not ready or rng.random() < 0.5):
            event = plan.pop(0)
            known += isinstance(event, NodePlanned)
        else:
            event = rng.choice(ready).pop(0)
        events.append(event)
    return [*events, run_finished()]


async def event_log(asked: RunRequest, known: RunEvents = (), term: int = 1) -> EventLog:
    """The log of a scheduler that resumes from the events it knows, and reaches no store."""
    state, store, writes = RunState(asked, known), MemoryContextStore(), WriteBehind()
    await writes.close()
    lease = RunLease(store, asked.tenant, asked.run_id, "owner", 60.0)
    return EventLog(state, Journal(store, writes, lease, state), decode, term)


async def drive(log: EventLog, parts: Parts, rng: random.Random) -> None:
    """Answer with these parts, from where the log stands; an event a second."""
    times: dict[int, float] = {}
    """When an event came first: a repetition has its time."""
    events = missing_events(log.state, parts, rng)
    for event in events:
        log.append(replace(event, at_s=times.setdefault(id(event), log.state.at_s + 1.0)))


async def emitted(log: EventLog, after: EventId = BEFORE_ALL) -> RunEvents:
    """What a follower gets that has the events up to `after`; not nothing."""
    async with aclosing(log.follow(after)) as batches:
        return await anext(batches)


async def run_events(asked: RunRequest, parts: Parts, rng: random.Random) -> RunEvents:
    """All events of a run."""
    log = await event_log(asked)
    await drive(log, parts, rng)
    return await emitted(log)

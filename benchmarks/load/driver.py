"""Asks questions as they arrive, and times the answers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

import httpx

from benchmarks.answering.asking import SEQUENTIAL, RefusedError, Way
from benchmarks.answering.questions import Question
from benchmarks.load.arrivals import Arrival, is_short
from benchmarks.load.outcomes import Outcome, Played
from benchmarks.load.systems import ANSWER_DEADLINE_S, System
from plato.errors import PlatoError
from plato.runs import Mode

SETTLE_S = 0.2
"""Between the last answer of one measurement and the next one."""


async def play(system: System, way: Way, arriving: Sequence[Arrival], rate: float) -> Played:
    """Ask at `rate` questions a second, and wait for all answers."""
    tasks = []
    began, busy = time.perf_counter(), time.thread_time()
    async with asyncio.TaskGroup() as group:
        for arrival in arriving:
            due = began + arrival.at / rate
            await asyncio.sleep(due - time.perf_counter())
            asking = ask(system, way, arrival.question, began, due)
            tasks.append(group.create_task(asking))
    busy, wall = time.thread_time() - busy, time.perf_counter() - began
    await asyncio.sleep(SETTLE_S)
    return Played(tuple(task.result() for task in tasks), busy / wall)


async def saturate(system: System, way: Way, questions: Sequence[Question]) -> Played:
    """Ask all of them, as many at a time as fill the system."""
    waiting, outcomes = list(reversed(questions)), list[Outcome]()
    began, busy = time.perf_counter(), time.thread_time()

    async def keep_asking() -> None:
        while waiting:
            due = time.perf_counter()
            outcomes.append(await ask(system, way, waiting.pop(), began, due))

    async with asyncio.TaskGroup() as group:
        for _ in range(system.at_once):
            group.create_task(keep_asking())
    busy, wall = time.thread_time() - busy, time.perf_counter() - began
    await asyncio.sleep(SETTLE_S)
    return Played(tuple(outcomes), busy / wall)


async def ask(system: System, way: Way, question: Question, began: float, due: float) -> Outcome:
    """Ask one question that was due at `due`."""
    started = time.perf_counter()

    def outcome(**fields: object) -> Outcome:
        ended = time.perf_counter()
        return Outcome(question, due - began, started - due, ended - due, **fields)  # type: ignore[arg-type]

    try:
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            answered = await system.asker.ask(question, SEQUENTIAL if is_short(question) else way)
    except RefusedError:
        return outcome(refused=True)
    except TimeoutError:
        failure = f"no answer within {ANSWER_DEADLINE_S:g} s"
    except (RuntimeError, PlatoError, httpx.HTTPError) as error:
        failure = f"{type(error).__name__}: {error}"
    else:
        if not system.equal_work or answered.tokens == question.tokens:
            return outcome(
                first_text_s=started - due + answered.first_text_s,
                tokens=answered.tokens,
                planned=answered.info.get("mode", Mode.SEQUENTIAL.value) != Mode.SEQUENTIAL.value,
            )
        failure = f"{answered.tokens} tokens, and not {question.tokens}"
    sys.stderr.write(f"{question.name}, {way.name}: {failure}\n")
    return outcome(failure=failure)

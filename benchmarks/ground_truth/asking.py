"""Asks tasks in one mode, through any client, and reads the text of every part."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from benchmarks.ground_truth.tasks import Task
from plato.client import Answer, Asker
from plato.runs import Mode, NodeOutput


async def ask_all(
    client: Asker,
    tasks: Sequence[Task],
    mode: Mode,
    *,
    given_plans: bool,
    sampling: dict[str, Any],
    concurrency: int,
) -> list[dict[str, Any]]:
    """One row for every task, in their order; `concurrency` tasks at a time.

    The n-th task gets the seed in `sampling` plus n, so that the choices of tasks are independent.
    """
    free = asyncio.Semaphore(concurrency)
    done = 0

    async def ask(index: int, task: Task) -> dict[str, Any]:
        nonlocal done
        own = {**sampling, "seed": sampling["seed"] + index}
        async with free:
            row = await _ask(client, task, mode, given_plans=given_plans, sampling=own)
        done += 1
        sys.stderr.write(f"\r{mode.value} {done}/{len(tasks)} ")
        return row

    rows = await asyncio.gather(*(ask(index, task) for index, task in enumerate(tasks)))
    sys.stderr.write("\n")
    return rows


async def _ask(
    client: Asker, task: Task, mode: Mode, *, given_plans: bool, sampling: dict[str, Any]
) -> dict[str, Any]:
    options: dict[str, Any] = {**sampling, "mode": mode}
    planned = given_plans and mode is not Mode.SEQUENTIAL
    if planned:
        options["max_nodes"] = len(task.plan)
        options["plan"] = [
            {
                "title": node.title,
                "dependencies": list(node.dependencies),
                "max_tokens": node.max_tokens,
            }
            for node in task.plan
        ]
    else:
        options["max_tokens"] = task.max_tokens
    answer: Answer | None = None
    texts: defaultdict[int, str] = defaultdict(str)
    async with aclosing(client.stream(task.question, **options)) as updates:
        async for update in updates:
            answer = update.answer or answer
            if isinstance(update.event, NodeOutput):
                texts[update.event.number] += update.event.node_text
    assert answer is not None
    # Only under the task's own plan is a node a part of the task.
    parts = (
        tuple(texts[node.number] for node in task.plan) if planned else task.sections(answer.text)
    )
    values = task.values(parts)
    return {
        "task": task.name,
        "kind": task.kind,
        "dependencies": task.dependencies,
        "depth": task.depth,
        "mode": mode.value,
        "answered_as": answer.info.mode.value,
        "correct": task.correct(values),
        "values": values,
        "question": task.question,
        "answer": answer.text,
        "plan": [(node.title, node.dependencies) for node in answer.graph.nodes],
    }

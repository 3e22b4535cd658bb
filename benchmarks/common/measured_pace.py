"""Step times and the prefill rate of one decoder, measured from outside."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from statistics import median

from benchmarks.common.closed_loop import Drive
from benchmarks.common.workload import fresh_tenant
from plato.engine import SamplingParams
from plato.runs import Message, Mode, NodeFinished, NodeOutput, RunFailed, RunRequest
from plato.testing.paced import Pace

WIDTHS = (1, 4, 16)
TOKENS = 48
"""Of each sequence."""
SHORT, LONG = 5, 600
"""Words of a question."""
DEADLINE_S = 300.0


async def measure_pace(drive: Drive) -> Pace:
    """Measure the one decoder behind `drive`, which must not have other work."""
    await _ask(drive, SHORT, TOKENS)
    steps = []
    for width in WIDTHS:
        took = await asyncio.gather(*(_ask(drive, SHORT, TOKENS) for _ in range(width)))
        seconds = median((last - first) / (TOKENS - 1) for first, last, _ in took)
        steps.append((width, 1e3 * seconds))
    # What both have in common, as the way there and back, does not count.
    (short_s, _, few), (long_s, _, many) = [await _ask(drive, words, 1) for words in (SHORT, LONG)]
    return replace(
        Pace(), step_ms=tuple(steps), prefill_tokens_per_s=(many - few) / (long_s - short_s)
    )


async def _ask(drive: Drive, words: int, tokens: int) -> tuple[float, float, int]:
    """Seconds until the first and the last token of one sequence, and its prompt tokens."""
    tenant = fresh_tenant()
    request = RunRequest(
        run_id=tenant,
        messages=(Message("user", f"{tenant} " + "word " * words),),
        mode=Mode.SEQUENTIAL,
        sampling=SamplingParams(),
        max_nodes=1,
        max_tokens=tokens,
        deadline_s=DEADLINE_S,
        tenant=tenant,
        exact_lengths=True,
    )
    loop = asyncio.get_running_loop()
    began, times, prompt = loop.time(), list[float](), 0
    async with aclosing(drive(request)) as batches:
        async for batch in batches:
            for event in batch:
                if isinstance(event, RunFailed):
                    raise RuntimeError(event.message)
                if isinstance(event, NodeOutput) and event.tokens:
                    times.append(loop.time() - began)
                if isinstance(event, NodeFinished):
                    prompt = event.report.prompt_tokens
    return times[0], times[-1], prompt

"""What counts for the penalties of a part, apart from its own text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plato.engine import SamplingParams
from plato.prompting.model_tools import ModelTools
from plato.runs import Mode
from tests.scheduling.conftest import MakeScheduler
from tests.scheduling.helpers import ScriptedPool, collect, parts, question

PENALISED = SamplingParams(repetition_penalty=1.2)


async def penalised(
    make_scheduler: MakeScheduler, tools: ModelTools, sampling: SamplingParams, mode: Mode
) -> list[set[str]]:
    """Texts of the tokens, for each sequence in the order of its part."""
    pool = ScriptedPool(tools)
    plan = parts((), (1,)) if mode is Mode.PLATO else None
    asked = replace(question(mode, plan=plan), sampling=sampling)
    await collect(make_scheduler(pool), asked)
    requests = sorted(pool.requests, key=lambda request: request.node)
    decode = tools.tokenizer.decode
    return [{decode((t,)).strip() for t in request.sampling.penalised} for request in requests]


async def test_the_question_counts_and_for_dependents_the_texts_that_they_see(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    first, second = await penalised(make_scheduler, tools, PENALISED, Mode.PLATO)
    assert "sea" in first
    assert "?" not in first
    assert second > first
    assert "." in second - first


async def test_a_sequential_answer_is_as_asked(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    assert await penalised(make_scheduler, tools, PENALISED, Mode.SEQUENTIAL) == [set()]


async def test_without_a_penalty_nothing_counts(
    make_scheduler: MakeScheduler, tools: ModelTools
) -> None:
    assert await penalised(make_scheduler, tools, SamplingParams(), Mode.PLATO) == [set(), set()]


@pytest.mark.parametrize("other", ["presence_penalty", "frequency_penalty"])
async def test_with_penalties_that_are_not_about_the_question_it_is_left_out(
    make_scheduler: MakeScheduler, tools: ModelTools, other: str
) -> None:
    sampling = replace(PENALISED, **{other: 0.5})
    first, second = await penalised(make_scheduler, tools, sampling, Mode.PLATO)
    assert first == set()
    assert "." in second

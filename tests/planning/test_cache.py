"""A kept plan is the plan that the model would write again, without its cost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plato.planning.cache import PlanCache
from plato.planning.protocol import PlanEnded, PlanLine, PlanStarted, PlanUsage
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import Message
from tests.planning.scripted import LINES, NODES, Script, ask, events_of, planner


async def test_the_same_question_is_planned_once(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES)
    cached = PlanCache(planner(script, tokenizer, template), 2)
    first = await events_of(cached, ask())
    again = await events_of(cached, ask())
    assert len(script.requests) == 1
    lines = [event for event in first if isinstance(event, PlanLine)]
    assert isinstance(first[0], PlanStarted)
    assert again == [*(PlanLine(node) for node in NODES), PlanEnded(split=True, usage=PlanUsage())]
    # From these another planner would resume.
    assert [event.emitted for event in again[:-1]] == [event.emitted for event in lines]


@pytest.mark.parametrize(
    "other",
    [
        {"tenant": "another"},
        {"messages": (Message("user", "Something else?"),)},
        {"parts": 3},
        {"decide": True},
        {"dependencies": False},
    ],
)
async def test_what_a_plan_depends_on_is_not_mixed_up(
    tokenizer: Tokenizer, template: ChatTemplate, other: dict[str, object]
) -> None:
    script = Script(tokenizer, *LINES)
    cached = PlanCache(planner(script, tokenizer, template), 2)
    await events_of(cached, ask())
    await events_of(cached, replace(ask(), **other))
    assert len(script.requests) == 2


async def test_a_plan_that_ended_early_is_not_kept(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, LINES[0], LINES[0])
    cached = PlanCache(planner(script, tokenizer, template), 2)
    ended = (await events_of(cached, ask()))[-1]
    assert isinstance(ended, PlanEnded)
    assert ended.reason is not None
    await events_of(cached, ask())
    assert len(script.requests) == 2


async def test_the_plans_that_were_used_last_are_kept(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES)
    cached = PlanCache(planner(script, tokenizer, template), 2)
    for tenant in ("a", "b", "a", "c", "a", "b"):
        await events_of(cached, replace(ask(), tenant=tenant))
    assert [request.prompt.tenant for request in script.requests] == ["a", "b", "c", "b"]

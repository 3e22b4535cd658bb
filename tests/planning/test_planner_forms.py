"""Engines without grammars, or without log probabilities: the plan takes another form."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from plato.engine import Chunk, GenerateRequest, RequestRefusedError, ResumptionRefusedError
from plato.planning.protocol import PlanStarted
from plato.prompting import ChatTemplate, Tokenizer
from tests.planning.scripted import NODES, Script, ask, ended, events_of, nodes_of, planner

JSON = (
    '{"parts": [{"title": "Solar", "needs": []}, {"title": "Wind", ',
    '"needs": []}, {"title": "Choice", "needs": [1, 2]}]}',
)
LINES = ("Let me plan.\n1 | Solar | -\n2 | W", "ind | -\n3 | Choice | 1,2\n", "[END]")


class PlainScript(Script):
    """Of an engine that reads only some notations, and reports no log probabilities."""

    def __init__(self, tokenizer: Tokenizer, *texts: str, notations: set[str], **answers: Any):
        super().__init__(tokenizer, *texts, **answers)
        self._notations = notations

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        grammar = request.grammar
        if grammar and not any(getattr(grammar, name) for name in self._notations):
            raise RequestRefusedError("the engine cannot decode under this grammar", "grammar")
        if request.score:
            raise RequestRefusedError("the engine reports no log probabilities", "score")
        async with aclosing(super().generate(request, ranked)) as chunks:
            async for chunk in chunks:
                yield chunk


@pytest.mark.parametrize(
    ("notations", "texts"), [({"json_schema"}, JSON), (set(), LINES)], ids=["json", "lines"]
)
async def test_a_plan_takes_the_first_form_that_the_engine_knows(
    tokenizer: Tokenizer, template: ChatTemplate, notations: set[str], texts: tuple[str, ...]
) -> None:
    script = PlainScript(tokenizer, *texts, notations=notations)
    events = await events_of(planner(script, tokenizer, template), ask())
    assert isinstance(events[0], PlanStarted)
    assert nodes_of(events) == NODES
    assert (ended(events).split, ended(events).reason) == (True, None)
    (request,) = script.requests
    assert (request.grammar is not None) is bool(notations)
    assert not request.sampling.logit_bias
    assert [role for role, _ in request.prompt.messages] == ["user"]


async def test_without_log_probabilities_auto_does_not_split_and_says_why(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = PlainScript(tokenizer, *LINES, notations=set())
    events = await events_of(planner(script, tokenizer, template), ask(decide=True))
    end = ended(events)
    assert not end.split
    assert end.reason == "the engine reports no log probabilities"
    assert nodes_of(events) == ()
    assert script.closed


async def test_skeletons_have_no_dependencies_in_any_form(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = PlainScript(tokenizer, *LINES, notations=set())
    events = await events_of(planner(script, tokenizer, template), ask(dependencies=False))
    assert [node.dependencies for node in nodes_of(events)] == [()] * 3


@pytest.mark.parametrize(
    "refused",
    [
        RequestRefusedError("the prompt is empty"),
        ResumptionRefusedError("the engine cannot go on"),
    ],
)
async def test_other_refusals_are_no_reason_for_another_form(
    tokenizer: Tokenizer, template: ChatTemplate, refused: Exception
) -> None:
    script = Script(tokenizer, refused)
    with pytest.raises(type(refused)):
        await events_of(planner(script, tokenizer, template), ask())
    assert len(script.requests) == 1


async def test_a_plan_that_was_begun_is_not_begun_again_in_another_form(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = PlainScript(tokenizer, *LINES, notations=set())
    emitted = tokenizer.text(LINES[0])
    with pytest.raises(RequestRefusedError):
        await events_of(planner(script, tokenizer, template), ask(emitted=emitted))

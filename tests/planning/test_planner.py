"""The planner's events for what a scripted pool decodes; its requests and decisions have files of
their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plato.engine import Chunk, FinishReason, GenerateRequest
from plato.errors import UnavailableError
from plato.planning.grammar import outline_line
from plato.planning.protocol import PlanEnded, PlanLine, PlanStarted, PlanUsage
from plato.prompting import ChatTemplate, Tokenizer
from tests.planning.scripted import (
    LINES,
    NODES,
    Script,
    ask,
    ended,
    events_of,
    nodes_of,
    planner,
)


async def test_a_plan_is_started_then_lines_then_ended(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES)
    events = await events_of(planner(script, tokenizer, template), ask())

    tokens = len(tokenizer.text("".join(LINES)))
    assert events == [
        PlanStarted("r1", "e1"),
        *(PlanLine(node) for node in NODES),
        # With two decisions on dependencies, of one token each.
        PlanEnded(
            split=True,
            usage=PlanUsage(
                tokens=tokens + 2, steps=tokens // 2 + 2, prompt_tokens=1050, cached_tokens=900
            ),
        ),
    ]
    assert script.closed


async def test_a_line_is_yielded_before_the_next_chunk_is_asked_for(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES)
    stream = planner(script, tokenizer, template).plan(ask())

    assert isinstance(await anext(stream), PlanStarted)
    assert script.sent == 0
    assert await anext(stream) == PlanLine(NODES[0])
    assert script.sent == 1
    await stream.aclose()


async def test_closing_the_plan_closes_the_engine_stream(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, LINES[0], None)
    stream = planner(script, tokenizer, template).plan(ask())
    await anext(stream)
    assert not script.closed
    await stream.aclose()
    assert script.closed


async def test_cancelling_the_consumer_closes_the_engine_stream(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, LINES[0], None)
    task = asyncio.create_task(events_of(planner(script, tokenizer, template), ask()))
    await script.waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert script.closed


async def test_past_its_deadline_a_plan_ends_with_the_lines_so_far(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES[:2], None)
    events = await events_of(planner(script, tokenizer, template), ask(deadline_s=0.05))

    assert nodes_of(events) == NODES[:2]
    assert ended(events).reason == "the plan exceeded its deadline of 0.05 s"
    assert script.closed


async def test_the_deadline_never_interrupts_what_the_consumer_waits_for(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES, None)
    stream = planner(script, tokenizer, template).plan(ask(deadline_s=0.02))
    await anext(stream)
    await asyncio.sleep(0.1)
    assert ended([event async for event in stream]).reason is not None


async def test_a_line_that_is_no_title_ends_the_plan_and_the_decoding_with_the_reason(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, "".join(LINES[:2]) + "And so on.\n", None)
    events = await events_of(planner(script, tokenizer, template), ask())

    assert nodes_of(events) == NODES[:2]
    assert ended(events).reason == "line 3 of the plan, 'And so on.', is no title"
    assert script.closed


@pytest.mark.parametrize(
    ("title", "why"),
    [
        ("solar", "repeated"),
        ("1,2,3", "no title"),
        ("Choose the", "no title"),
        ("Most of what I know of wind by night and sun by day", "too long"),
    ],
)
async def test_a_title_that_is_refused_ends_the_plan_and_the_decoding_with_the_reason(
    tokenizer: Tokenizer, template: ChatTemplate, title: str, why: str
) -> None:
    script = Script(tokenizer, *LINES[:2], outline_line(3, title), None)
    events = await events_of(planner(script, tokenizer, template), ask())

    assert nodes_of(events) == NODES[:2]
    assert ended(events).refused == title
    assert ended(events).reason == f"the plan ended before its line 3, {title!r} ({why})"
    assert ended(events).split
    assert script.closed


async def test_lines_of_one_chunk_are_taken_up_to_the_refused_one(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    text = "".join((*LINES[:2], outline_line(3, "Wind"), outline_line(4, "Rain")))
    script = Script(tokenizer, text)
    events = await events_of(planner(script, tokenizer, template), ask())

    assert nodes_of(events) == NODES[:2]
    assert ended(events).refused == "Wind"


async def test_a_plan_that_is_not_refused_ends_without_a_reason(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES)
    events = await events_of(planner(script, tokenizer, template), ask())
    assert (ended(events).reason, ended(events).refused) == (None, None)


async def test_a_list_that_the_model_ends_after_two_lines_is_a_plan_of_two(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    # The token that ends the turn has no text.
    script = Script(tokenizer, *LINES[:2], "")
    events = await events_of(planner(script, tokenizer, template), ask())

    assert nodes_of(events) == NODES[:2]
    assert ended(events) == PlanEnded(split=True, usage=ended(events).usage)


async def test_a_plan_that_uses_up_its_budget_says_so_and_keeps_its_lines(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES[:2], "3. **Ch", finish=FinishReason.LENGTH)
    events = await events_of(planner(script, tokenizer, template), ask())

    assert nodes_of(events) == NODES[:2]
    assert ended(events).reason == "the plan used up its token budget"


async def test_a_plan_that_its_decoder_drops_is_a_failure_after_the_lines_before(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES[:2], "3. **Ch", finish=FinishReason.CANCELLED)
    events = []

    async def plan() -> None:
        async for event in planner(script, tokenizer, template).plan(ask()):
            events.append(event)  # noqa: PERF401 - it raises in the middle

    with pytest.raises(UnavailableError, match="dropped"):
        await plan()
    assert nodes_of(events) == NODES[:2]


async def test_a_failure_of_the_pool_goes_through(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, LINES[0], ConnectionError("replica died"))
    with pytest.raises(ConnectionError, match="replica died"):
        await events_of(planner(script, tokenizer, template), ask())


async def test_a_timeout_inside_the_pool_is_a_failure_and_not_the_deadline(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, LINES[0], TimeoutError("no answer"))
    with pytest.raises(TimeoutError, match="no answer"):
        await events_of(planner(script, tokenizer, template), ask())


async def test_a_second_attempt_resumes_behind_the_tokens_and_sends_their_lines_again(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    emitted = tokenizer.text("".join(LINES[:2]) + "3. **Ch")
    script = Script(tokenizer, "oice**:\n")
    request = ask(attempt=1, emitted=emitted, known=NODES[:2])
    events = await events_of(planner(script, tokenizer, template), request)

    assert nodes_of(events) == NODES
    assert (script.requests[0].attempt, script.requests[0].emitted) == (1, emitted)
    lines = [event for event in events if isinstance(event, PlanLine)]
    assert lines[-1].emitted == (*emitted, *tokenizer.text("oice**:\n"))


async def test_a_second_attempt_resumes_behind_the_last_complete_character(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    *emitted, rest = tokenizer.text(LINES[0] + "2. **😀")
    assert tokenizer.decode((rest,)) != "😀", "a character of several tokens"
    script = Script(tokenizer, "😀 Wind**:\n")
    request = ask(attempt=1, emitted=tuple(emitted), known=NODES[:1])
    events = await events_of(planner(script, tokenizer, template), request)
    assert [node.title for node in nodes_of(events)] == ["Solar", "😀 Wind"]


async def test_a_gap_in_the_tokens_is_a_failure(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    class Losing(Script):
        def _chunk(self, request: GenerateRequest, offset: int, text: str, **fields: Any) -> Chunk:
            return super()._chunk(request, offset + 1 if offset else 0, text, **fields)

    script = Losing(tokenizer, *LINES)
    with pytest.raises(UnavailableError, match="tokens of the plan are missing"):
        await events_of(planner(script, tokenizer, template), ask())

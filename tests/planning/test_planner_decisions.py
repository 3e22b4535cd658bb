"""What the planner decides apart from the titles: whether to split, and the dependencies."""

from __future__ import annotations

import asyncio
import math

import pytest

from plato.engine import Lease, SamplingParams
from plato.errors import UnavailableError
from plato.planning.decider import PlanContext
from plato.planning.prompt import shown_question
from plato.planning.protocol import PlanEvent, PlanLine, PlanStarted
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import Node
from tests.planning.scripted import (
    LINES,
    NEEDS,
    NODES,
    Script,
    ask,
    ended,
    events_of,
    nodes_of,
    planner,
)

NOT_SPLIT = (math.log(0.3), math.log(0.7))


async def test_a_decision_is_one_token_for_the_scores_at_the_replica_of_the_plan(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    lease = Lease("scheduler", 1.5)
    script = Script(tokenizer, *LINES)
    asked = ask(decide=True, lease=lease, run_began_unix_s=7.0)
    await events_of(planner(script, tokenizer, template), asked)

    assert [request.node for request, _ in script.decisions] == [-1, -2, -3]
    for request, replicas in script.decisions:
        assert (request.run_id, request.prompt.tenant) == ("run", "tenant")
        assert (request.max_tokens, request.grammar, request.lease) == (1, None, lease)
        # So they are of the model itself, also where a server reports them after sampling.
        assert request.sampling == SamplingParams()
        # Parts wait for decisions.
        assert request.priority > script.requests[0].priority
        assert request.run_began_unix_s == 7.0
        assert replicas == ("r1",)
    scored = [
        [tokenizer.decode((token,)) for token in request.score] for request, _ in script.decisions
    ]
    assert scored == [["[", "1"], [" nothing", " A"], [" nothing", " A", " B"]]


def context(tokenizer: Tokenizer) -> PlanContext:
    """A plan that decisions are asked for apart from."""
    request = ask()
    return PlanContext(request, shown_question(tokenizer, request.messages))


class TestSplit:
    async def test_in_favour_lets_the_lines_through_with_its_probability(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, *LINES)
        events = await events_of(planner(script, tokenizer, template), ask(decide=True))

        assert nodes_of(events) == NODES
        assert ended(events).split
        assert ended(events).usage.one_probability == pytest.approx(0.1)
        lines = [event for event in events if isinstance(event, PlanLine)]
        assert all(line.usage.one_probability == pytest.approx(0.1) for line in lines)

    async def test_against_ends_the_plan_without_a_line(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, "".join(LINES), None, split=NOT_SPLIT)
        events = await events_of(planner(script, tokenizer, template), ask(decide=True))

        assert nodes_of(events) == ()
        assert not ended(events).split
        assert ended(events).usage.one_probability == pytest.approx(0.3)
        assert ended(events).reason is None
        assert script.closed

    async def test_against_lets_no_line_of_the_first_chunk_through(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, "".join(LINES), split=NOT_SPLIT)
        events = await events_of(planner(script, tokenizer, template), ask(decide=True))
        assert isinstance(events[0], PlanStarted)
        assert nodes_of(events) == ()
        assert not ended(events).split

    async def test_is_not_waited_for_before_the_plan_counts_as_started(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        # The scheduler renews its lease at the replica from here on.
        script = Script(tokenizer, *LINES, split=None)
        stream = planner(script, tokenizer, template).plan(ask(decide=True))
        assert await anext(stream) == PlanStarted("r1", "e1")
        await stream.aclose()

    async def test_is_not_asked_for_where_the_answer_must_be_split(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, *LINES, split=NOT_SPLIT)
        events = await events_of(planner(script, tokenizer, template), ask())
        assert nodes_of(events) == NODES
        assert ended(events).usage.one_probability is None

    async def test_was_made_if_nodes_are_known(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, *LINES[1:], split=NOT_SPLIT)
        request = ask(decide=True, attempt=1, emitted=tokenizer.text(LINES[0]), known=NODES[:1])
        events = await events_of(planner(script, tokenizer, template), request)
        assert nodes_of(events) == NODES

    async def test_that_hangs_is_bounded_by_the_deadline(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, *LINES, split=None)
        request = ask(decide=True, deadline_s=0.05)
        events = await events_of(planner(script, tokenizer, template), request)

        assert nodes_of(events) == ()
        assert ended(events).reason == "the plan exceeded its deadline of 0.05 s"
        assert script.closed

    async def test_is_decoded_at_the_time_of_the_plan_and_cancelled_with_its_consumer(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, *LINES, split=None)
        plan = events_of(planner(script, tokenizer, template), ask(decide=True))
        task = asyncio.create_task(plan)
        await script.waits.wait()
        assert script.open == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not script.open

    async def test_that_fails_fails_the_plan(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, *LINES, split=ConnectionError("replica died"))
        with pytest.raises(ConnectionError, match="replica died"):
            await events_of(planner(script, tokenizer, template), ask(decide=True))
        assert not script.open


class TestDependencies:
    async def test_are_decided_behind_the_lines_that_are_decided(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, *LINES)
        await events_of(planner(script, tokenizer, template), ask())
        second, third = (tokenizer.decode(request.prompt.tokens) for request, _ in script.decisions)
        assert second.endswith("\nA: Solar. Uses nothing\nB: Wind. Uses")
        assert third.endswith("\nA: Solar. Uses nothing\nB: Wind. Uses nothing\nC: Choice. Uses")

    async def test_are_not_asked_for_where_none_count(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, *LINES)
        events = await events_of(planner(script, tokenizer, template), ask(dependencies=False))
        assert [node.dependencies for node in nodes_of(events)] == [(), (), ()]
        assert not script.decisions

    async def test_of_the_first_part_are_none_without_asking(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, LINES[0])
        events = await events_of(planner(script, tokenizer, template), ask())
        assert nodes_of(events) == NODES[:1]
        assert not script.decisions

    async def test_of_known_nodes_stay_as_they_are(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        known = (NODES[0], Node(2, "Wind", (1,)))
        script = Script(tokenizer, LINES[2])
        request = ask(attempt=1, emitted=tokenizer.text("".join(LINES[:2])), known=known)
        events = await events_of(planner(script, tokenizer, template), request)

        assert nodes_of(events) == (*known, NODES[2])
        ((decision, _),) = script.decisions
        assert (decision.node, decision.attempt) == (-3, 1)
        assert "B: Wind. Uses A\n" in tokenizer.decode(decision.prompt.tokens)

    async def test_of_a_line_that_is_not_known_are_decided_again(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, LINES[2])
        request = ask(attempt=1, emitted=tokenizer.text("".join(LINES[:2])), known=NODES[:1])
        events = await events_of(planner(script, tokenizer, template), request)
        assert nodes_of(events) == NODES
        assert [decision.node for decision, _ in script.decisions] == [-2, -3]

    async def test_that_the_decoder_drops_are_a_failure_after_the_lines_before(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, *LINES, needs={2: NEEDS[2]})
        events: list[PlanEvent] = []

        async def plan() -> None:
            async for event in planner(script, tokenizer, template).plan(ask()):
                events.append(event)  # noqa: PERF401 - it raises in the middle

        with pytest.raises(UnavailableError, match="dropped a decision"):
            await plan()
        assert nodes_of(events) == NODES[:2]
        assert not script.open

    async def test_that_hang_are_bounded_by_the_deadline_and_lose_no_line_of_the_same_chunk(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer, "".join(LINES), None, needs={**NEEDS, 3: None})
        events = await events_of(planner(script, tokenizer, template), ask(deadline_s=0.05))
        assert nodes_of(events) == NODES[:2]
        assert ended(events).reason == "the plan exceeded its deadline of 0.05 s"
        assert script.closed

    async def test_are_chosen_for_titles_of_any_plan(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer)
        decider = planner(script, tokenizer, template).decider
        assert await decider.dependencies(context(tokenizer), NODES[:2], "Choice") == (1, 2)
        assert script.decisions[0][1] == ()

    async def test_of_a_part_beyond_the_last_letter_are_none_without_asking(
        self, tokenizer: Tokenizer, template: ChatTemplate
    ) -> None:
        script = Script(tokenizer)
        decider = planner(script, tokenizer, template).decider
        earlier = [Node(number, f"Part {number}") for number in range(1, 27)]
        assert await decider.dependencies(context(tokenizer), earlier, "Choice") == ()
        assert not script.decisions

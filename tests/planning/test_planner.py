"""The planner against a scripted pool: faults and orders of events that no model can be made to
produce, over the text and tokens that a real tokenizer gives."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

import pytest

from plato.engine import Chunk, FinishReason, GenerateRequest, Lease
from plato.errors import UnavailableError
from plato.planning.planner import ModelPlanner
from plato.planning.protocol import PlanEnded, PlanEvent, PlanLine, PlanRequest, PlanStarted
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import Message, Node

LINES = ("1 | - | Solar\n", "2 | - | Wind\n", "3 | 1,2 | Choice\n")
NODES = (Node(1, "Solar"), Node(2, "Wind"), Node(3, "Choice", (1, 2)))


class Script:
    """A pool that replays texts, one chunk each; `None` waits for ever."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *texts: str | Exception | None,
        finish: FinishReason = FinishReason.STOP,
        first: tuple[tuple[int, float], ...] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._texts = texts
        self._finish = finish
        self._first = first
        self.requests: list[GenerateRequest] = []
        self.sent = 0
        self.waits = asyncio.Event()
        self.closed = False

    async def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncIterator[Chunk]:
        self.requests.append(request)
        try:
            yield self._chunk(request, 0, "", cached_tokens=300)
            offset = 0
            for place, text in enumerate(self._texts):
                if text is None:
                    self.waits.set()
                    await asyncio.Event().wait()
                    continue
                if isinstance(text, Exception):
                    raise text
                last = place == len(self._texts) - 1
                chunk = self._chunk(request, offset, text, finish=self._finish if last else None)
                self.sent += 1
                yield chunk
                offset += len(chunk.tokens)
        finally:
            self.closed = True

    def _chunk(
        self,
        request: GenerateRequest,
        offset: int,
        text: str,
        *,
        finish: FinishReason | None = None,
        cached_tokens: int = 0,
    ) -> Chunk:
        tokens = self._tokenizer.text(text)
        return Chunk(
            run_id=request.run_id,
            node=request.node,
            attempt=0,
            offset=offset,
            tokens=tokens,
            text=text,
            finish=finish,
            prompt_tokens=350,
            cached_tokens=cached_tokens,
            replica="r1",
            epoch="e1",
            first=self._first if tokens and offset == 0 else (),
            steps=(offset + len(tokens)) // 2,
        )


def planner(script: Script, tokenizer: Tokenizer, template: ChatTemplate) -> ModelPlanner:
    return ModelPlanner(script, tokenizer, template, max_title_chars=60, split_threshold=0.25)


def ask(*, decide: bool = False, deadline_s: float = 5, lease: Lease | None = None) -> PlanRequest:
    return PlanRequest(
        run_id="run",
        tenant="tenant",
        messages=(Message("user", "Solar or wind?"),),
        max_nodes=6,
        decide=decide,
        lease=lease,
        deadline_s=deadline_s,
    )


async def events_of(planner: ModelPlanner, request: PlanRequest) -> list[PlanEvent]:
    return [event async for event in planner.plan(request)]


def ended(events: Sequence[PlanEvent]) -> PlanEnded:
    assert isinstance(events[-1], PlanEnded)
    return events[-1]


def nodes_of(events: Sequence[PlanEvent]) -> tuple[Node, ...]:
    return tuple(event.node for event in events if isinstance(event, PlanLine))


async def test_a_plan_is_started_then_lines_then_ended(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES, "[END]")
    events = await events_of(planner(script, tokenizer, template), ask())

    tokens = len(tokenizer.text("".join(LINES))) + len(tokenizer.text("[END]"))
    assert events == [
        PlanStarted("r1", "e1"),
        *(PlanLine(node) for node in NODES),
        PlanEnded(
            split=True, tokens=tokens, steps=tokens // 2, prompt_tokens=350, cached_tokens=300
        ),
    ]
    assert script.closed


async def test_a_line_is_yielded_before_the_next_chunk_is_asked_for(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES, "[END]")
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


async def test_one_ends_the_plan_without_lines_and_reports_its_probability(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    one, split = tokenizer.text("[ONE]")[0], tokenizer.text("1 |")[0]
    first = ((split, math.log(0.7)), (one, math.log(0.3)))
    script = Script(tokenizer, "[", "ONE]", first=first)
    events = await events_of(planner(script, tokenizer, template), ask(decide=True))

    assert nodes_of(events) == ()
    assert not ended(events).split
    assert ended(events).one_probability == pytest.approx(0.3)
    assert ended(events).reason is None


async def test_a_line_that_does_not_parse_ends_the_plan_and_the_decoding(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, LINES[0] + LINES[1] + "3 | 9 | Oops\n", None)
    events = await events_of(planner(script, tokenizer, template), ask())

    assert nodes_of(events) == NODES[:2]
    assert "line 3: part 3 depends on part 9" in (ended(events).reason or "")
    assert script.closed


async def test_a_title_that_was_there_before_ends_the_plan(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES[:2], "3 | - | solar\n", None)
    events = await events_of(planner(script, tokenizer, template), ask())

    assert nodes_of(events) == NODES[:2]
    assert ended(events).reason is None
    assert script.closed


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        (FinishReason.LENGTH, "the plan used up its token budget"),
        (FinishReason.STOP, "the plan stopped before its end"),
    ],
)
async def test_a_stream_that_ends_before_the_plan_gives_the_reason(
    tokenizer: Tokenizer, template: ChatTemplate, finish: FinishReason, reason: str
) -> None:
    script = Script(tokenizer, *LINES[:2], "3 | -", finish=finish)
    events = await events_of(planner(script, tokenizer, template), ask())

    assert nodes_of(events) == NODES[:2]
    assert ended(events).reason == reason


async def test_a_plan_that_its_decoder_drops_is_a_failure_after_the_lines_before(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    script = Script(tokenizer, *LINES[:2], "3 | -", finish=FinishReason.CANCELLED)
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


async def test_the_request_is_greedy_under_the_grammar_and_carries_the_lease(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    lease = Lease("scheduler", 1.5)
    script = Script(tokenizer, *LINES, "[END]")
    await events_of(planner(script, tokenizer, template), ask(lease=lease))
    await events_of(planner(script, tokenizer, template), ask(decide=True))
    free, deciding = script.requests

    assert (free.node, free.lease, free.prompt.tenant) == (0, lease, "tenant")
    assert free.sampling.temperature == 0
    assert free.report_first == 0
    assert free.sampling.first_token_bias == ()
    assert "[ONE]" not in (free.grammar or "")
    assert deciding.report_first == 8
    ((token, bias),) = deciding.sampling.first_token_bias
    assert token == tokenizer.text("[ONE]")[0]
    assert bias == pytest.approx(math.log(3))
    assert "[ONE]" in (deciding.grammar or "")

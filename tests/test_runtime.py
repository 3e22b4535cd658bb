"""The whole pipeline in one process, on the real small model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plato.engine import Chunk, GenerateRequest, Prompt, SamplingParams, Segment
from plato.engine.torch import TorchEngine
from plato.engine.torch.core import EngineCore
from plato.errors import ModelError, OverloadedError, PlatoError
from plato.planning.given import validate_plan
from plato.runs import (
    Answer,
    Message,
    Mode,
    Node,
    NodeOutput,
    NodeState,
    RunError,
    RunFinished,
    RunReport,
    RunRequest,
)
from plato.runtime import LocalPool, Runtime
from plato.settings import Settings

QUESTION = "What should I think of before I buy a used bicycle?"
SEQUENTIAL = {"mode": "sequential"}
DIAMOND = validate_plan(
    [
        Node(1, "Where to look", max_tokens=8),
        Node(2, "The frame", (1,), max_tokens=8),
        Node(3, "The brakes", (1,), max_tokens=8),
        Node(4, "What to decide", (2, 3), max_tokens=8),
    ],
    max_nodes=8,
)

# One event loop for all of this file: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(model_folder: str) -> AsyncIterator[Runtime]:
    """The default model in float32; a generous lease, as test machines are slow."""
    settings = Settings(
        model=model_folder,
        dtype="float32",
        temperature=0.0,
        kv_budget_mb=512,
        node_max_tokens=12,
        max_title_words=2,
        lease_ttl_s=60,
        equal_work=True,
    )
    async with await Runtime.open(settings) as opened:
        yield opened


def question(**fields: Any) -> RunRequest:
    """A run for which `ask` hides too much."""
    return RunRequest(
        run_id="run",
        messages=(Message("user", QUESTION),),
        sampling=SamplingParams(),
        max_nodes=8,
        deadline_s=120.0,
        **fields,
    )


def engine_of(runtime: Runtime) -> TorchEngine:
    (engine,) = runtime.engines.values()
    assert isinstance(engine, TorchEngine)
    return engine


async def idle(runtime: Runtime) -> None:
    """Wait until nothing decodes, and check that nothing leaked; leases last longer."""
    async with asyncio.timeout(30):
        while any(engine.stats().live for engine in runtime.engines.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for engine in runtime.engines.values():
        assert isinstance(engine, TorchEngine)
        await engine.inspect(EngineCore.check_integrity)


def part(report: RunReport, number: int) -> tuple[float, float]:
    """When a part started and ended."""
    node = report.nodes[number - 1]
    assert node.started_s is not None
    assert node.finished_s is not None
    return node.started_s, node.finished_s


@pytest.mark.slow
async def test_a_question_is_planned_and_its_parts_start_before_the_plan_is_complete(
    runtime: Runtime,
) -> None:
    answer = await runtime.ask(QUESTION, plato={"mode": "plato", "max_nodes": 3})
    report = answer.report
    assert report.mode is Mode.PLATO
    assert report.plan.source == "model"
    assert len(report.nodes) == report.plan.nodes >= 2
    assert part(report, 1)[0] < report.plan.finished_s
    assert all(node.state is NodeState.DONE for node in report.nodes)
    assert answer.text.count("\n\n") >= len(report.nodes) - 1
    assert report.first_text_s is not None
    assert report.first_text_s < report.duration_s
    # The parts share the question, and the plan's prompt is shared with nobody.
    assert all(node.cached_tokens > 0 for node in report.nodes[1:])
    await idle(runtime)


@pytest.mark.slow
async def test_skeleton_decodes_a_given_plan_without_its_dependencies(runtime: Runtime) -> None:
    plato = {"mode": "skeleton", "plan": DIAMOND, "headings": True}
    answer = await runtime.ask(QUESTION, plato=plato)
    report = answer.report
    assert report.mode is Mode.SKELETON
    assert all(node.sees == () for node in report.nodes)
    headings = [line for line in answer.text.splitlines() if line.startswith("## ")]
    assert headings == [f"## {node.title}" for node in DIAMOND]


@pytest.mark.slow
async def test_sequential_is_an_ordinary_answer(runtime: Runtime) -> None:
    answer = await runtime.ask("What is 2 + 2?", plato=SEQUENTIAL, max_tokens=12)
    assert "4" in answer.text
    assert answer.report.mode is Mode.SEQUENTIAL
    assert answer.report.output_tokens <= 12


async def test_auto_does_not_split_what_max_tokens_leaves_no_room_for(runtime: Runtime) -> None:
    answer = await runtime.ask("How do I choose a bicycle?", max_tokens=12)
    assert answer.report.mode is Mode.SEQUENTIAL
    assert answer.report.reason == "not split: max_tokens leaves less than 48 tokens for each part"
    assert answer.report.plan.source == "none"


@pytest.mark.slow
async def test_auto_decides_and_says_why_it_did_not_split(runtime: Runtime) -> None:
    answer = await runtime.ask("What is the capital of France?", max_tokens=100)
    report = answer.report
    assert report.requested_mode is Mode.AUTO
    assert report.plan.one_probability is not None
    assert report.mode in (Mode.PLATO, Mode.SEQUENTIAL)
    assert (report.reason is not None) or report.mode is Mode.PLATO


@pytest.mark.slow
async def test_a_diamond_overlaps_and_its_last_part_sees_the_others(runtime: Runtime) -> None:
    texts = dict.fromkeys((1, 2, 3, 4), "")
    report: RunReport | None = None
    request = question(mode=Mode.PLATO, plan=DIAMOND, include_prompts=True)
    async with aclosing(runtime.run(request)) as batches:
        async for event in (event async for batch in batches for event in batch):
            if isinstance(event, NodeOutput):
                texts[event.number] += event.node_text
            if isinstance(event, RunFinished):
                report = event.report
    assert report is not None
    (start2, end2), (start3, end3) = part(report, 2), part(report, 3)
    assert max(start2, start3) < min(end2, end3)
    assert part(report, 4)[0] >= max(end2, end3)
    assert report.nodes[3].sees == (1, 2, 3)
    prompt = report.nodes[3].prompt
    assert prompt is not None
    for number in (1, 2, 3):
        assert texts[number].strip()
        assert texts[number].strip() in prompt


@pytest.mark.slow
async def test_equal_seeds_give_equal_texts_alone_and_among_seven_others(
    runtime: Runtime,
) -> None:
    plan = tuple(replace(node, max_tokens=5) for node in DIAMOND)

    async def ask(seed: int) -> str:
        plato = {"mode": "plato", "plan": plan}
        answer = await runtime.ask(QUESTION, plato=plato, temperature=0.8, seed=seed)
        return answer.text

    alone = await ask(1)
    together = await asyncio.gather(*(ask(seed) for seed in range(1, 9)))
    assert together[0] == alone
    assert len(set(together)) == 8


@pytest.mark.parametrize("plato", [{"plan": DIAMOND}, {"mode": "sequential"}])
@pytest.mark.slow
async def test_max_tokens_bounds_the_answer(runtime: Runtime, plato: dict[str, Any]) -> None:
    answer = await runtime.ask(QUESTION, plato=plato, max_tokens=10)
    assert answer.finish_reason == "length"
    assert answer.tokens == 10
    await idle(runtime)


@pytest.mark.slow
async def test_a_stop_string_ends_the_answer_and_cancels_the_rest(runtime: Runtime) -> None:
    first, second = Node(1, "Where to look", max_tokens=10), Node(2, "The frame", max_tokens=300)

    async def ask(plan: tuple[Node, ...], *stop: str) -> Answer:
        plato = {"mode": "plato", "plan": plan, "exact_lengths": True}
        return await runtime.ask(QUESTION, plato=plato, stop=stop)

    whole = await ask((first, replace(second, max_tokens=1)))
    word = whole.text.split()[2]
    before = engine_of(runtime).stats().output_tokens
    answer = await ask((first, second), word)
    assert answer.text == whole.text[: whole.text.index(word)]
    assert answer.finish_reason == "stop"
    await idle(runtime)
    spent = engine_of(runtime).stats().output_tokens - before
    assert spent < 200
    assert answer.report.nodes[1].state is NodeState.CANCELLED
    assert 0 < answer.report.output_tokens <= spent


@pytest.mark.slow
async def test_earlier_turns_are_part_of_the_question(runtime: Runtime) -> None:
    messages = [
        Message("system", "You are brief."),
        Message("user", "My name is Zbigniew."),
        Message("assistant", "Hello Zbigniew!"),
        Message("user", "What is my name?"),
    ]
    answer = await runtime.ask(messages, plato=SEQUENTIAL, max_tokens=16)
    assert "Zbigniew" in answer.text


@pytest.mark.slow
async def test_a_plan_that_is_no_plan_raises_what_to_change(runtime: Runtime) -> None:
    with pytest.raises(PlatoError, match="depends on part 3"):
        await runtime.ask(QUESTION, plato={"plan": (Node(1, "One"), Node(2, "Two", (3,)))})


@pytest.mark.slow
async def test_a_run_that_fails_raises_what_to_do(runtime: Runtime) -> None:
    with pytest.raises(RunError, match="8192") as raised:
        await runtime.ask("word " * 9000, plato=SEQUENTIAL)
    assert (raised.value.status, raised.value.code) == (400, "context_length_exceeded")


@pytest.mark.slow
async def test_closing_the_events_cancels(runtime: Runtime) -> None:
    request = question(mode=Mode.SEQUENTIAL, max_tokens=500, exact_lengths=True)
    async with aclosing(runtime.run(request)) as batches:
        async for batch in batches:
            assert not isinstance(batch[-1], RunFinished)
            if any(isinstance(event, NodeOutput) for event in batch):
                break
    (engine,) = runtime.engines.values()
    before = engine.stats().output_tokens
    await idle(runtime)
    assert engine.stats().output_tokens - before < 400


@pytest.mark.slow
async def test_two_engines_share_the_parts_of_one_question(tiny_model_folder: str) -> None:
    settings = Settings(
        model=tiny_model_folder,
        temperature=0.0,
        decoders=2,
        kv_budget_mb=16,
        node_max_tokens=24,
        lease_ttl_s=60,
    )
    plan = tuple(Node(number, f"Part {number}") for number in range(1, 9))
    async with await Runtime.open(settings) as runtime:
        answers: list[Answer] = await asyncio.gather(
            *(runtime.ask(QUESTION, plato={"mode": "plato", "plan": plan}) for _ in range(3))
        )
        used = {node.replica for answer in answers for node in answer.report.nodes}
        assert used == {"local-0", "local-1"}
        assert len({answer.text for answer in answers}) == 1
        await idle(runtime)


async def test_more_questions_than_allowed_are_refused(tiny_model_folder: str) -> None:
    settings = Settings(
        model=tiny_model_folder,
        kv_budget_mb=16,
        max_runs=1,
        max_waiting_runs=0,
        node_max_tokens=24,
    )
    async with await Runtime.open(settings) as runtime:
        asked = [runtime.ask(QUESTION, plato=SEQUENTIAL, max_tokens=40) for _ in range(2)]
        first, second = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(first, Answer)
        assert isinstance(second, PlatoError)
        assert second.status == OverloadedError.status
        assert second.retry_after_s is not None
    await runtime.close()


async def test_a_model_that_cannot_be_loaded_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        await Runtime.open(Settings(model=str(tmp_path)))


@pytest.mark.slow
async def test_a_prefix_is_got_from_the_engine_that_has_it(tiny_model_folder: str) -> None:
    settings = Settings(model=tiny_model_folder, kv_budget_mb=16, decoders=2)
    async with await Runtime.open(settings) as runtime:
        first, second = runtime.engines
        pool = LocalPool(runtime.engines)
        prompt = Prompt((Segment(tuple(range(100, 500))),), "acme")

        async def decode(node: int, name: str, **fields: Any) -> Chunk:
            request = GenerateRequest("run", node, prompt, max_tokens=4, **fields)
            return [chunk async for chunk in pool.generate(request, (name,))][-1]

        await decode(1, first)
        moved = await decode(2, second, source=first, source_tokens=400)
        assert moved.replica == second
        assert moved.cached_tokens == 399
        assert runtime.engines[second].stats().imported_tokens == 400
        # One that has it no more, or never was there, costs a prefill and nothing else.
        other = Prompt((Segment(tuple(range(600, 900))),), "acme")
        request = GenerateRequest("run", 3, other, max_tokens=4, source=first, source_tokens=300)
        last = [chunk async for chunk in pool.generate(request, (second,))][-1]
        assert last.cached_tokens == 0

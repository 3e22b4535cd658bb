"""What the engine makes of vLLM's answers and failures, with an emulation of vLLM."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from plato.engine import (
    EngineBusyError,
    EngineClosedError,
    EngineError,
    FinishReason,
    Grammar,
    RequestRefusedError,
    Segment,
    StopConditions,
)
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.vllm import VllmConfig, VllmEngine
from plato.engine.vllm.protocol import Step
from tests.engine.helpers import ask, collect, some_tokens
from tests.engine.vllm.emulated import EmulatedBackend
from tests.engine.waiting import until

DIGITS = Grammar(lark='start: "12345" "67890"\n')
DEAD_END = Grammar(lark="start: NOTHING\nNOTHING: /[a-z]+/ & /[0-9]+/\n")


@pytest.fixture
def config(tiny_folder: str) -> VllmConfig:
    return VllmConfig(tiny_folder, TokenizerConfig.load(tiny_folder), max_sequences=2)


@asynccontextmanager
async def started(config: VllmConfig, start: Any = EmulatedBackend) -> AsyncIterator[VllmEngine]:
    engine = await asyncio.to_thread(VllmEngine, config, start=start)
    try:
        yield engine
    finally:
        await engine.close()


class Failing(EmulatedBackend):
    """Fails after three tokens, as the class says."""

    error: Exception | None = EngineClosedError("vLLM has failed")
    dies = False

    async def generate(self, *arguments: Any) -> AsyncGenerator[Step]:
        count = 0
        async for step in super().generate(*arguments):
            if count == 3:
                self.failed = self.dies
                if self.error is not None:
                    raise self.error
                return
            yield step
            count += 1


async def test_a_grammar_resumes_within_a_plan_and_ends_the_sequence(config: VllmConfig) -> None:
    async with started(config) as engine:
        request = ask(some_tokens(5), grammar=DIGITS, max_tokens=50, stop=StopConditions())
        whole = await collect(engine, request)
        assert (whole.text, whole.finish) == ("1234567890", FinishReason.STOP)
        for cut in range(1, len(whole.tokens)):
            resumed = ask(some_tokens(5), grammar=DIGITS, max_tokens=50, emitted=whole.tokens[:cut])
            assert (await collect(engine, resumed)).tokens == whole.tokens[cut:]


@pytest.mark.parametrize("grammar", [DEAD_END, Grammar("start: (")])
async def test_a_grammar_that_cannot_be_followed_is_refused(
    config: VllmConfig, grammar: Grammar
) -> None:
    async with started(config) as engine:
        with pytest.raises(RequestRefusedError):
            await collect(engine, ask(some_tokens(5), grammar=grammar))
        await until(lambda: not engine.stats().live)
        assert (await collect(engine, ask(some_tokens(5)))).finish is FinishReason.LENGTH


async def test_a_full_queue_is_busy(config: VllmConfig) -> None:
    async with started(replace(config, max_waiting=1)) as engine:
        requests = [ask(some_tokens(5), node=node, max_tokens=100) for node in range(6)]
        results = await asyncio.gather(
            *(collect(engine, request) for request in requests), return_exceptions=True
        )
        assert [type(r) for r in results if isinstance(r, Exception)] == [EngineBusyError] * 3
        assert engine.stats().load.prefill_tokens == 0


async def test_more_scores_than_vllm_reports_are_refused(config: VllmConfig) -> None:
    async with started(config) as engine:
        with pytest.raises(RequestRefusedError, match="at most 128"):
            await collect(engine, ask(some_tokens(5), score=tuple(range(129))))


async def test_what_siblings_share_is_expected_once(config: VllmConfig) -> None:
    shared = Segment(some_tokens(200))
    requests = [ask(shared, some_tokens(5, node + 1), node=node) for node in range(4)]
    async with started(config) as engine:
        streams = [engine.generate(request) for request in requests]
        for stream in streams:
            await anext(stream)
        chunks = await asyncio.gather(*(anext(stream) for stream in streams))
        assert max(chunk.load.prefill_tokens for chunk in chunks) <= 3 * 5
        for stream in streams:
            await stream.aclose()
        await until(lambda: not engine.stats().live)
        assert engine.stats().load.prefill_tokens == 0


async def test_vllm_that_dies_ends_all_sequences_and_the_engine(config: VllmConfig) -> None:
    class Dying(Failing):
        dies = True

    async with started(config, Dying) as engine:
        with pytest.raises(EngineClosedError, match="vLLM has failed"):
            await collect(engine, ask(some_tokens(5)))
        await until(lambda: engine._core.failure)
        with pytest.raises(EngineClosedError):
            engine.stats()
        with pytest.raises(EngineClosedError):
            await collect(engine, ask(some_tokens(5)))


@pytest.mark.parametrize("error", [ValueError("broken"), None])
async def test_an_answer_that_breaks_off_is_an_error_of_its_sequence_alone(
    config: VllmConfig, error: Exception | None
) -> None:
    class Breaking(Failing):
        pass

    Breaking.error = error
    async with started(config, Breaking) as engine:
        with pytest.raises(EngineError) as raised:
            await collect(engine, ask(some_tokens(5)))
        assert not isinstance(raised.value, EngineClosedError)
        assert (await collect(engine, ask(some_tokens(5), max_tokens=3))).finish == "length"


def test_vllm_that_reports_no_scores_is_refused_at_start(config: VllmConfig) -> None:
    class Mute(EmulatedBackend):
        ended = False

        async def generate(self, *arguments: Any) -> AsyncGenerator[Step]:
            async for step in super().generate(*arguments):
                yield replace(step, scores=())

        def shutdown(self) -> None:
            Mute.ended = True

    with pytest.raises(EngineError, match="not report log probabilities"):
        VllmEngine(config, start=Mute)
    assert Mute.ended


def test_vllm_that_does_not_start_leaves_no_thread(config: VllmConfig) -> None:
    def start(_: VllmConfig) -> Any:
        raise EngineError("vLLM cannot serve it")

    before = threading.active_count()
    with pytest.raises(EngineError, match="cannot serve it"):
        VllmEngine(config, start=start)
    assert threading.active_count() == before

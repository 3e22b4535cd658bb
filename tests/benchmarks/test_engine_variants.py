"""Engine variants do without a feature and give the same text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.engine.variants import engine_without_forced_tokens, engine_without_reuse
from plato.assembly import EngineFactory, new_engine
from plato.engine import (
    EngineStats,
    GenerateRequest,
    Prompt,
    Segment,
    StopConditions,
    losses,
)
from plato.settings import Settings
from tests.engine.helpers import Stream, ask, collect, some_tokens

GRAMMAR = 'start: "The " /[a-z]{3}/ " ends here"'


@pytest.fixture
def settings() -> Settings:
    return Settings(
        adapter="none", device="cpu", dtype="float32", kv_budget_mb=8, decoder_threads=1
    )


async def decode(
    factory: EngineFactory, settings: Settings, folder: str, request: GenerateRequest
) -> tuple[list[Stream], EngineStats]:
    """The request twice, one after the other."""
    engine = factory(settings, folder, "decoder-0")
    streams = [await collect(engine, request) for _ in range(2)]
    stats = engine.stats()
    await engine.close()
    return streams, stats


@pytest.mark.slow
async def test_without_forced_tokens_every_token_takes_a_step_and_the_text_is_the_same(
    settings: Settings, tiny_model_folder: str
) -> None:
    request = ask(some_tokens(20), max_tokens=60, grammar=GRAMMAR, stop=StopConditions())
    (usual, _), _ = await decode(new_engine, settings, tiny_model_folder, request)
    (stepwise, _), stats = await decode(
        engine_without_forced_tokens, settings, tiny_model_folder, request
    )
    assert usual.last.steps < len(usual.tokens)
    assert stepwise.last.steps == len(stepwise.tokens)
    assert stepwise.text == usual.text
    assert losses(stats.capabilities) == ("tokens without an alternative take a step each",)


@pytest.mark.slow
async def test_without_reuse_equal_prompts_are_computed_again_and_give_the_same(
    settings: Settings, tiny_model_folder: str
) -> None:
    prompt = Prompt((Segment(some_tokens(30), public=True), Segment(some_tokens(10, seed=2))))
    request = replace(ask(some_tokens(1), max_tokens=8), prompt=prompt)
    usual, usual_stats = await decode(new_engine, settings, tiny_model_folder, request)
    again, stats = await decode(engine_without_reuse, settings, tiny_model_folder, request)
    assert len({stream.tokens for stream in usual + again}) == 1
    assert usual_stats.cached_tokens == len(prompt) - 1
    assert stats.cached_tokens == 0
    assert stats.prompt_tokens == 2 * len(prompt)
    (lost,) = losses(stats.capabilities)
    assert "no prefix is reused" in lost

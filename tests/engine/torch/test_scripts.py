"""Scripts stand in for what the model would choose, and parts of the engine can be turned off."""

from __future__ import annotations

import pytest

from plato.engine import Prompt, RequestRefusedError, SamplingParams, Segment, StopConditions
from plato.engine.torch import TorchEngineConfig
from plato.engine.torch.core import EngineCore
from plato.engine.torch.model import LanguageModel
from tests.engine.helpers import ask, run_alone, some_tokens

GRAMMAR = 'start: "The " /[a-z]{3}/ " ends here"'


def core_with(tiny: LanguageModel, **fields: bool) -> EngineCore:
    budget = 2000 * tiny.kv_bytes_per_token
    config = TorchEngineConfig("unused", kv_budget_bytes=budget, **fields)
    return EngineCore(tiny, config, "epoch")


def test_a_script_is_decoded_step_by_step_and_then_the_model_goes_on(tiny: LanguageModel) -> None:
    core = core_with(tiny)
    script = some_tokens(6, seed=5)
    free = run_alone(core, ask(some_tokens(20), max_tokens=10))
    assert tuple(free.tokens[:6]) != script
    forced = run_alone(core, ask(some_tokens(20), max_tokens=10, script=script))
    assert tuple(forced.tokens[:6]) == script
    assert forced.last.steps == 10
    # What follows is what the model says behind the script.
    behind = run_alone(core, ask((*some_tokens(20), *script), max_tokens=4))
    assert forced.tokens[6:] == behind.tokens


def test_a_script_goes_on_behind_emitted_tokens(tiny: LanguageModel) -> None:
    core = core_with(tiny)
    script = some_tokens(6, seed=5)
    request = ask(some_tokens(20), max_tokens=6, script=script, emitted=script[:4])
    assert tuple(run_alone(core, request).tokens) == script[4:]


def test_a_script_outside_the_vocabulary_is_refused(tiny: LanguageModel) -> None:
    with pytest.raises(RequestRefusedError, match="vocabulary"):
        core_with(tiny).check(ask(some_tokens(5), max_tokens=5, script=(10**9,)))


def test_without_forced_tokens_every_token_takes_a_step_and_the_text_is_the_same(
    tiny: LanguageModel,
) -> None:
    request = ask(
        some_tokens(20),
        max_tokens=60,
        grammar=GRAMMAR,
        stop=StopConditions(),
        sampling=SamplingParams(),
    )
    usual = run_alone(core_with(tiny), request)
    stepwise = run_alone(core_with(tiny, forced_tokens=False), request)
    assert usual.last.steps < len(usual.tokens)
    assert stepwise.last.steps == len(stepwise.tokens)
    assert stepwise.text == usual.text


def test_without_reuse_equal_prompts_are_computed_again_and_give_the_same(
    tiny: LanguageModel,
) -> None:
    prompt = Prompt((Segment(some_tokens(30), public=True), Segment(some_tokens(10, seed=2))))
    request = ask(some_tokens(1), max_tokens=8)
    from dataclasses import replace

    request = replace(request, prompt=prompt)
    usual, unshared = core_with(tiny), core_with(tiny, reuse=False)
    texts = {tuple(run_alone(core, request).tokens) for core in (usual, unshared) for _ in "12"}
    assert len(texts) == 1
    assert usual.cached_tokens == len(prompt) - 1
    assert unshared.cached_tokens == 0
    assert unshared.prompt_tokens == 2 * len(prompt)

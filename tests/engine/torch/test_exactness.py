"""The real model in float32 says the same, whatever happens to a sequence and around it.

Six prompts of 32 tokens each; `make soak` has twenty of 64. Every output is judged by the oracle of
`assert_greedy`: after the same tokens, transformers' own model chooses the same next one, ties
aside. An output that is equal to one that was judged needs no second judgement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from plato.engine import GenerateRequest
from plato.engine.torch import TorchEngineConfig
from plato.engine.torch.core import EngineCore
from plato.engine.torch.model import LanguageModel
from tests.engine.conftest import MakeCore
from tests.engine.helpers import Stream, ask, assert_greedy, drain, run_alone, run_together

QUESTIONS = (
    "How do I bake bread?",
    "Name three colours.",
    "Why is the sky blue?",
    "Tell me about Iceland.",
    "How does a bicycle stay upright?",
    "What is a prime number?",
    "Explain rain.",
    "Who was Newton?",
    "Write a short poem about the sea.",
    "What should I pack for a week in the mountains?",
    "Compare cats and dogs as pets.",
    "How do vaccines work?",
    "List the steps to change a tyre.",
    "What causes inflation?",
    "Describe a sunset to somebody who has never seen one.",
    "What is 17 times 23?",
    "Translate 'good morning' into French, Spanish and German.",
    "Why did the Roman Empire fall?",
    "Give me a recipe for tomato soup, with amounts for four people and the time each step takes.",
    "def fibonacci(n):",
)
FEW = ("What is a prime number?", *QUESTIONS[16:], "Why is the sky blue?")
"""Of different lengths and kinds: prose, languages, a list with amounts, code."""

pytestmark = pytest.mark.slow

Judge = Callable[[int, tuple[int, ...]], None]


@dataclass(frozen=True)
class Series:
    """How many prompts there are, how long their outputs, and how little memory preempts them."""

    questions: tuple[str, ...]
    tokens: int
    cuts: tuple[int, int]
    """Where the outputs are forked."""
    tight: int
    """KV tokens that not all of them have room in."""
    evicted: int
    """KV tokens that are evicted then, at least."""


SHORT = Series(FEW, 32, (6, 20), 180, 90)
LONG = Series(QUESTIONS, 64, (10, 40), 520, 520)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(SHORT, id="short"),
        pytest.param(LONG, id="long", marks=pytest.mark.soak),
    ],
)
def series(request: pytest.FixtureRequest) -> Series:
    found: Series = request.param
    return found


@pytest.fixture(scope="module")
def prompts(tokenizer: Any, series: Series) -> list[tuple[int, ...]]:
    return [
        tuple(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                add_generation_prompt=True,
                return_dict=False,
            )
        )
        for question in series.questions
    ]


@pytest.fixture(scope="module")
def judge(small_reference: Any, series: Series, prompts: list[tuple[int, ...]]) -> Judge:
    """Judges all tokens of a prompt; what was judged well is remembered."""
    judged: set[tuple[int, tuple[int, ...]]] = set()

    def check(index: int, output: tuple[int, ...]) -> None:
        assert len(output) == series.tokens
        if (index, output) not in judged:
            assert_greedy(small_reference, prompts[index], output)
            judged.add((index, output))

    return check


@pytest.fixture(scope="module")
def requests(series: Series, prompts: list[tuple[int, ...]]) -> list[GenerateRequest]:
    return [ask(prompt, node=i, max_tokens=series.tokens) for i, prompt in enumerate(prompts)]


@pytest.fixture
def core(make_core: MakeCore, small: LanguageModel) -> EngineCore:
    return make_core(small, kv_tokens=6000, max_sequences=20)


def test_alone(
    make_core: MakeCore,
    small: LanguageModel,
    requests: list[GenerateRequest],
    judge: Judge,
) -> None:
    core = make_core(small, kv_tokens=200)
    for index, request in enumerate(requests):
        judge(index, run_alone(core, request).tokens)


@pytest.fixture(scope="module")
def together(small: LanguageModel, requests: list[GenerateRequest]) -> list[Stream]:
    """All at once, with prompts in chunks."""
    config = TorchEngineConfig(
        "unused",
        kv_budget_bytes=6000 * small.kv_bytes_per_token,
        max_sequences=20,
        prefill_chunk=16,
    )
    return run_together(EngineCore(small, config, "epoch"), requests)


def test_together_and_with_prompts_in_chunks(together: list[Stream], judge: Judge) -> None:
    for index, stream in enumerate(together):
        judge(index, stream.tokens)
    assert sum(stream.cached for stream in together) > 0, "they share the system prompt"


def test_forked_while_the_parent_decodes(
    core: EngineCore,
    series: Series,
    requests: list[GenerateRequest],
    prompts: list[tuple[int, ...]],
    judge: Judge,
) -> None:
    parents = [Stream() for _ in range(0, len(prompts), 2)]
    for request, stream in zip(requests[::2], parents, strict=True):
        core.add(request, stream)
    forks: list[tuple[int, tuple[int, ...], Stream]] = []
    for cut in series.cuts:
        while len(parents[-1].tokens) < cut + 1:
            core.step()
        for index, parent in enumerate(parents):
            begun = parent.tokens[:cut]
            forks.append((index, begun, Stream()))
            core.add(ask(prompts[2 * index], begun, max_tokens=series.tokens - cut), forks[-1][2])
    drain(core)
    for index, begun, fork in forks:
        # All of it but the token that the fork starts from was there.
        assert fork.cached >= len(prompts[2 * index]) + len(begun) - 1
        judge(2 * index, begun + fork.tokens)
    for index, parent in enumerate(parents):
        judge(2 * index, parent.tokens)


def test_preempted_evicted_and_computed_again(
    make_core: MakeCore,
    small: LanguageModel,
    series: Series,
    requests: list[GenerateRequest],
    judge: Judge,
) -> None:
    core = make_core(small, kv_tokens=series.tight, max_sequences=20)
    streams = run_together(core, requests)
    for index, stream in enumerate(streams):
        judge(index, stream.tokens)
    assert core.preemptions >= len(requests) // 5
    assert core.recomputed_tokens > 0
    assert core.tree.evicted > series.evicted


def test_continued_from_what_was_emitted_elsewhere(
    core: EngineCore,
    series: Series,
    prompts: list[tuple[int, ...]],
    together: list[Stream],
    judge: Judge,
) -> None:
    begun = [stream.tokens[: 1 + 3 * index] for index, stream in enumerate(together)]
    continued = [
        ask(prompt, node=index, max_tokens=series.tokens, emitted=tokens, attempt=1)
        for index, (prompt, tokens) in enumerate(zip(prompts, begun, strict=True))
    ]
    for index, stream in enumerate(run_together(core, continued)):
        assert stream.chunks[0].offset == len(begun[index])
        judge(index, begun[index] + stream.tokens)

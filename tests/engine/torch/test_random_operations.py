"""Random operations in random order: nothing leaks, and no text changes."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plato.engine import FinishReason, GenerateRequest, Segment
from plato.engine.torch.core import EngineCore
from plato.engine.torch.pins import PIN_TTL_S
from tests.clock import Clock
from tests.engine.conftest import MakeCore
from tests.engine.helpers import Stream, ask, assert_greedy, drain, run_alone, some_tokens

EXAMPLES = int(os.environ.get("PLATO_RANDOM_EXAMPLES", "10"))
"""`make soak` tries 100."""
WORDS = [some_tokens(length, length) for length in (3, 6, 11)]
"""Few segments, so that random prompts share much."""
RUNS = st.sampled_from(["a", "b", "c"])
ANY = st.integers(0, 20)

segments = st.builds(
    lambda first, rest: (Segment(WORDS[first], public=True), *rest),
    st.integers(0, 1),
    st.lists(st.sampled_from(WORDS), max_size=2),
)
requests = st.builds(
    lambda parts, tenant, **fields: ask(*parts, tenant=tenant, **fields),
    segments,
    st.sampled_from(["a", "b"]),
    run_id=RUNS,
    max_tokens=st.integers(8, 40),
    run_began_unix_s=st.sampled_from([0.0, 1.0]),
    priority=st.integers(0, 1),
    keep=st.one_of(st.none(), st.integers(0, 2)),
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), requests),
        st.tuples(st.just("fork"), st.tuples(ANY, ANY)),
        # Twice as often: between forks their parents must decode.
        st.tuples(st.just("fork"), st.tuples(ANY, ANY)),
        st.tuples(st.just("cancel"), ANY),
        st.tuples(st.just("pin"), st.tuples(ANY, RUNS, st.integers(0, 3))),
        st.tuples(st.just("release"), RUNS),
        st.tuples(st.just("evict"), st.integers(1, 60)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, PIN_TTL_S])),
        st.tuples(st.just("step"), st.integers(3, 15)),
    ),
    min_size=10,
    max_size=40,
)


class Driver:
    """Plays operations on an engine and remembers what was asked."""

    def __init__(self, core: EngineCore, clock: Clock) -> None:
        self._core = core
        self._clock = clock
        self.streams: list[tuple[GenerateRequest, Stream]] = []

    def play(self, name: str, value: Any) -> None:
        getattr(self, name)(value)
        self._core.check_integrity()

    def add(self, request: GenerateRequest) -> None:
        self.streams.append((request, Stream()))
        self._core.add(request, self.streams[-1][1])

    def fork(self, value: tuple[int, int]) -> None:
        """Another node continues the tokens of an earlier one, live or not."""
        if self.streams:
            parent, stream = self.streams[value[0] % len(self.streams)]
            output = stream.tokens[: value[1]]
            if len(parent.prompt) < 40 and output:
                prompt = parent.prompt.extended(Segment(output), Segment(WORDS[0]))
                self.add(ask(*prompt.segments, tenant=prompt.tenant, max_tokens=10))

    def cancel(self, value: int) -> None:
        if self.streams:
            victim = self.streams[value % len(self.streams)][0]
            self._core.cancel(lambda sequence: sequence.request is victim)

    def pin(self, value: tuple[int, str, int]) -> None:
        index, run, distance = value
        if self.streams:
            self._core.pin(run, self.streams[index % len(self.streams)][0].prompt, distance)

    def release(self, run_id: str) -> None:
        self._core.release(run_id)

    def evict(self, count: int) -> None:
        # As a step does, which then says how much is left.
        self._core.tree.ensure_free(count)
        self._core.step()

    def wait(self, seconds: float) -> None:
        self._clock.now += seconds
        self._core.expire()

    def step(self, count: int) -> None:
        for _ in range(count):
            self._core.step()
            self._core.check_integrity()


@pytest.fixture
def expected(make_core: MakeCore) -> Any:
    """The tokens that a request gives alone, on an engine of its own."""

    @cache
    def alone(tokens: tuple[int, ...], budget: int) -> tuple[int, ...]:
        return run_alone(make_core(), ask(tokens, max_tokens=budget)).tokens

    return alone


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    crowd=st.lists(requests, min_size=3, max_size=6),
    operations=operations,
    chunk=st.sampled_from([2, 5, 64]),
    kv_tokens=st.integers(72, 100),
)
def test_leak_nothing_and_change_no_text(
    make_core: MakeCore,
    clock: Clock,
    tiny_reference: Any,
    expected: Any,
    crowd: list[GenerateRequest],
    operations: list[tuple[str, Any]],
    chunk: int,
    kv_tokens: int,
) -> None:
    core = make_core(kv_tokens=kv_tokens, prefill_chunk=chunk, max_sequences=4)
    driver = Driver(core, clock)
    for request in crowd:
        driver.add(request)
    for name, value in operations:
        driver.play(name, value)
    drain(core)

    for request, stream in driver.streams:
        prompt = request.prompt.tokens
        alone = expected(prompt, request.max_tokens)
        if stream.finish is FinishReason.CANCELLED:
            alone = alone[: len(stream.tokens)]
        else:
            assert stream.finish is FinishReason.LENGTH
            assert 0 <= stream.cached < len(prompt)
        if stream.tokens != alone:
            # Only a tie may be decided in another way.
            assert len(stream.tokens) == len(alone)
            assert_greedy(tiny_reference, prompt, stream.tokens)
    assert core.load.kv_free == kv_tokens
    assert core.prompt_tokens >= core.cached_tokens >= 0

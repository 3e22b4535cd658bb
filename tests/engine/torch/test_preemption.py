"""When memory runs out, a sequence is preempted and resumes later with the same output."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plato.engine import FinishReason, Lease, SamplingParams, StopConditions
from plato.engine.torch import TorchEngine
from plato.engine.torch.core import EngineCore
from plato.engine.torch.model import LanguageModel
from tests.clock import Clock
from tests.engine.conftest import MakeCore, tiny_config
from tests.engine.helpers import (
    Stream,
    ask,
    assert_greedy,
    collect,
    drain,
    run_alone,
    some_tokens,
)

PROMPTS = [some_tokens(20, seed) for seed in range(6)]


def start(core: EngineCore, *requests: Any) -> list[Stream]:
    streams = []
    for request in requests:
        streams.append(Stream())
        core.add(request, streams[-1])
    return streams


def watch(core: EngineCore, steps: int = 2000) -> None:
    """Step to the end, checking everything after every step."""
    for _ in range(steps):
        if not core.has_work:
            return
        core.step()
        core.check_integrity()
    raise AssertionError(f"work is left after {steps} steps")


def crowd(core: EngineCore, count: int = 4, **fields: Any) -> list[Stream]:
    """More sequences than fit to their ends, though all fit at their beginning."""
    return start(core, *(ask(PROMPTS[i], node=i, max_tokens=50, **fields) for i in range(count)))


class TestMemory:
    def test_is_taken_as_it_is_needed(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=200)
        start(core, *(ask(prompt, max_tokens=100) for prompt in PROMPTS[:4]))
        core.step()
        # Whole budgets would let only one of them in.
        assert core.load.running == 4
        assert core.pool.free_count == 200 - 4 * (19 + 16)

    def test_that_runs_out_preempts_the_latest(
        self, make_core: MakeCore, tiny_reference: Any
    ) -> None:
        core = make_core(kv_tokens=160)
        streams = crowd(core)
        order: list[int] = []
        while core.has_work:
            core.step()
            core.check_integrity()
            order += [i for i, s in enumerate(streams) if s.finish and i not in order]
        assert core.preemptions > 0
        assert order == [0, 1, 2, 3]
        for prompt, stream in zip(PROMPTS, streams, strict=False):
            assert stream.finish is FinishReason.LENGTH
            assert len(stream.tokens) == 50
            assert_greedy(tiny_reference, prompt, stream.tokens)

    def test_that_runs_out_preempts_the_lowest_priority_first(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=160)
        low, *others = start(
            core,
            ask(PROMPTS[0], node=0, max_tokens=50, priority=0),
            *(ask(PROMPTS[i], node=i, max_tokens=50, priority=1) for i in (1, 2, 3)),
        )
        while not core.preemptions:
            core.step()
        assert core.live[-1] == ("run", 0)
        watch(core)
        assert all(len(stream.tokens) == 50 for stream in (low, *others))

    def test_is_first_taken_from_evictable_kv(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=100)
        run_alone(core, ask(PROMPTS[5], max_tokens=20))
        start(core, ask(PROMPTS[0], max_tokens=25), ask(PROMPTS[1], max_tokens=25))
        watch(core)
        assert core.preemptions == 0
        assert core.tree.evicted > 0

    @pytest.mark.slow
    def test_for_one_at_a_time_serves_all(self, make_core: MakeCore, tiny_reference: Any) -> None:
        core = make_core(kv_tokens=70)
        streams = crowd(core, 6)
        watch(core)
        for prompt, stream in zip(PROMPTS, streams, strict=True):
            assert_greedy(tiny_reference, prompt, stream.tokens)


class TestAPreemptedSequence:
    def preempted(self, core: EngineCore, **fields: Any) -> tuple[Stream, Stream]:
        """Two sequences, the second of which has just been preempted."""
        first, second = start(
            core,
            ask(PROMPTS[0], node=0, max_tokens=60),
            ask(PROMPTS[1], node=1, **{"max_tokens": 60, **fields}),
        )
        while not core.preemptions:
            core.step()
        assert core.load.waiting == 1
        assert second.tokens
        core.check_integrity()
        return first, second

    def test_finds_what_it_had_computed_if_it_is_still_there(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=100)
        first, second = self.preempted(core, priority=0)
        core.cancel(lambda sequence: sequence.request.node == 0)
        before = len(second.tokens)
        core.step()
        assert len(second.tokens) == before + 1
        assert core.recomputed_tokens == 0
        watch(core)
        assert first.finish is FinishReason.CANCELLED

    def test_computes_again_what_is_gone_and_counts_it_once(
        self, make_core: MakeCore, tiny_reference: Any
    ) -> None:
        core = make_core(kv_tokens=100)
        streams = self.preempted(core)
        watch(core)
        assert 0 < core.recomputed_tokens <= 20 + 60
        for prompt, stream in zip(PROMPTS, streams, strict=False):
            assert stream.cached == 0
            assert stream.last.steps == 60
            assert [chunk.offset for chunk in stream.chunks] == list(range(60))
            assert_greedy(tiny_reference, prompt, stream.tokens)
        assert (core.prompt_tokens, core.cached_tokens, core.output_tokens) == (40, 0, 120)

    def test_in_mid_prefill_counts_right_too(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=120, prefill_chunk=1)
        first, second = start(
            core, ask(PROMPTS[0], max_tokens=80), ask(some_tokens(64, 9), max_tokens=10)
        )
        while not core.preemptions:
            core.step()
        assert not second.tokens
        watch(core)
        assert core.recomputed_tokens > 0
        assert (first.cached, second.cached) == (0, 0)
        assert core.prompt_tokens == 84
        assert core.cached_tokens == 0

    def test_goes_back_to_the_front_of_its_queue(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=100)
        self.preempted(core)
        late = start(core, ask(some_tokens(5, 50), node=7, max_tokens=1))[0]
        urgent = start(core, ask(some_tokens(5, 51), node=8, max_tokens=1, priority=1))[0]
        assert core.live == (("run", 0), ("run", 8), ("run", 1), ("run", 7))
        core.step()
        # There is room for a short one, and a higher claim may pass; a lower one may not.
        assert urgent.finish is FinishReason.LENGTH
        assert late.finish is None
        assert ("run", 7) in core.live
        watch(core)
        assert late.finish is FinishReason.LENGTH

    def test_is_not_admitted_to_be_preempted_at_once(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=160)
        crowd(core)
        watch(core)
        # Each comes back only when there is room to decode for a while.
        assert core.preemptions <= 6

    def test_can_be_cancelled(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=100)
        _, second = self.preempted(core)
        core.cancel(lambda sequence: sequence.request.node == 1)
        assert second.finish is FinishReason.CANCELLED
        core.check_integrity()
        watch(core)

    def test_can_lose_its_lease(self, make_core: MakeCore, clock: Clock) -> None:
        core = make_core(kv_tokens=100)
        _, second = self.preempted(core, lease=Lease("a", 1.0))
        clock.now += 2
        core.expire()
        assert second.finish is FinishReason.CANCELLED
        watch(core)
        core.check_integrity()

    @pytest.mark.parametrize(
        "fields",
        [
            {"sampling": SamplingParams(temperature=0.9, seed=5, repetition_penalty=1.3)},
            {"grammar": "start: /([a-z]+ ?){30,40}/\n"},
            {"stop": StopConditions(end_tokens=False, strings=("never there",))},
        ],
        ids=["sampling", "grammar", "stop"],
    )
    def test_says_what_it_would_have_said(self, make_core: MakeCore, fields: Any) -> None:
        request = ask(PROMPTS[1], node=1, **{"max_tokens": 60, **fields})
        alone = run_alone(make_core(), request)
        core = make_core(kv_tokens=100)
        _, second = self.preempted(core, **fields)
        watch(core)
        assert (second.tokens, second.text) == (alone.tokens, alone.text)


class TestDeadlocks:
    def test_waiting_for_a_prefix_whose_owner_is_preempted(
        self, make_core: MakeCore, tiny_reference: Any
    ) -> None:
        core = make_core(kv_tokens=150, prefill_chunk=8)
        shared = some_tokens(50, 70)
        requests = [
            ask(PROMPTS[0], node=0, max_tokens=80, priority=5),
            ask(shared, some_tokens(4, 1), node=1, priority=1),
            ask(shared, some_tokens(4, 2), node=2, priority=3),
        ]
        streams = start(core, *requests)
        watch(core)
        for request, stream in zip(requests, streams, strict=True):
            assert_greedy(tiny_reference, request.prompt.tokens, stream.tokens)

    def test_the_highest_claim_always_advances(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=75)
        streams = start(
            core,
            *(ask(PROMPTS[i], node=i, max_tokens=50, priority=i % 3, keep=0) for i in range(6)),
        )
        for _ in range(400):
            if not core.has_work:
                break
            before = sum(len(stream.tokens) for stream in streams)
            top = core.live[0][1]
            length = len(streams[top].tokens)
            core.step()
            core.check_integrity()
            if core.live and core.live[0][1] == top and length:
                assert len(streams[top].tokens) == length + 1
            assert sum(len(stream.tokens) for stream in streams) >= before
        assert all(stream.finish is FinishReason.LENGTH for stream in streams)


@pytest.mark.slow
async def test_operators_see_it_in_the_stats(tiny_folder: str, tiny: LanguageModel) -> None:
    config = tiny_config(tiny_folder, kv_budget_bytes=100 * tiny.kv_bytes_per_token)
    engine = await asyncio.to_thread(TorchEngine, config)
    try:
        before = engine.stats()
        assert (before.preemptions, before.evicted_tokens, before.recomputed_tokens) == (0, 0, 0)
        requests = [ask(PROMPTS[i], node=i, max_tokens=60) for i in range(3)]
        await asyncio.gather(*(collect(engine, request) for request in requests))
        after = engine.stats()
        assert min(after.preemptions, after.evicted_tokens, after.recomputed_tokens) > 0
        assert after.prompt_tokens == 60
        assert after.output_tokens == 180
    finally:
        await engine.close()


def test_a_request_that_fills_the_whole_budget_runs_among_others(make_core: MakeCore) -> None:
    core = make_core(kv_tokens=100)
    streams = start(
        core,
        ask(some_tokens(10, 1), max_tokens=30),
        ask(some_tokens(10, 2), max_tokens=90),
        ask(some_tokens(10, 3), max_tokens=30),
    )
    drain(core)
    assert [len(stream.tokens) for stream in streams] == [30, 90, 30]

"""Budgets, refusals, the queue, and what the load says about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from plato.engine import (
    EngineBusyError,
    FinishReason,
    GenerateRequest,
    RequestRefusedError,
    SamplingParams,
    StopConditions,
)
from plato.engine.torch import TorchEngine
from plato.engine.torch.core import EngineCore
from tests.engine.conftest import MakeCore
from tests.engine.helpers import (
    Stream,
    ask,
    assert_greedy,
    collect,
    drain,
    run_alone,
    run_together,
    some_tokens,
)

pytestmark = pytest.mark.hostile

PROMPT = some_tokens(10)
END = 2
EAGER = SamplingParams(logit_bias=((END, 1e6),))
"""Chooses the end of the turn whenever it can."""


class TestBudgets:
    @pytest.mark.parametrize("budget", [1, 2, 13])
    def test_are_met_exactly(self, make_core: MakeCore, budget: int) -> None:
        stream = run_alone(make_core(), ask(PROMPT, max_tokens=budget))
        assert len(stream.tokens) == budget
        assert stream.finish is FinishReason.LENGTH
        assert [chunk.finish for chunk in stream.chunks[:-1]] == [None] * (budget - 1)

    def test_count_what_was_emitted_before(self, make_core: MakeCore) -> None:
        stream = run_alone(make_core(), ask(PROMPT, max_tokens=5, emitted=some_tokens(3)))
        assert len(stream.tokens) == 2
        assert stream.finish is FinishReason.LENGTH

    def test_end_earlier_with_the_turn(self, make_core: MakeCore) -> None:
        stream = run_alone(make_core(), ask(PROMPT, sampling=EAGER, stop=StopConditions()))
        assert (stream.tokens, stream.text) == ((END,), "")
        assert stream.finish is FinishReason.STOP

    def test_go_past_the_turn_when_asked(self, make_core: MakeCore) -> None:
        stream = run_alone(make_core(), ask(PROMPT, sampling=EAGER))
        assert stream.tokens == (END,) * 8
        assert stream.finish is FinishReason.LENGTH


class TestRefusals:
    @pytest.mark.parametrize(
        ("request_", "message"),
        [
            (ask(()), "prompt is empty"),
            (ask(PROMPT, max_tokens=0), "emitted already; raise it"),
            (ask(PROMPT, max_tokens=3, emitted=(1, 2, 3)), "emitted already; raise it"),
            (ask(PROMPT, max_tokens=503), "context of 512 tokens; shorten"),
            (ask(PROMPT, max_tokens=91), "the KV budget is 100; shorten"),
            (ask(PROMPT, stop=StopConditions(strings=("x", ""))), "stop string is empty"),
        ],
    )
    def test_say_what_to_change(
        self, make_core: MakeCore, request_: GenerateRequest, message: str
    ) -> None:
        core = make_core(kv_tokens=100)
        with pytest.raises(RequestRefusedError, match=message):
            core.add(request_, Stream())
        assert not core.has_work

    def test_start_right_behind_what_fits(self, make_core: MakeCore) -> None:
        assert len(run_alone(make_core(), ask(PROMPT, max_tokens=502)).tokens) == 502
        core = make_core(kv_tokens=100)
        assert len(run_alone(core, ask(PROMPT, max_tokens=90)).tokens) == 90

    async def test_reach_the_consumer_at_once(self, engine: TorchEngine) -> None:
        with pytest.raises(RequestRefusedError, match="context"):
            await anext(engine.generate(ask(PROMPT, max_tokens=600)))


class TestQueue:
    def test_is_bounded(self, make_core: MakeCore) -> None:
        core = make_core(max_sequences=1, max_waiting=2)
        streams = [Stream() for _ in range(3)]
        core.add(ask(PROMPT, node=0), streams[0])
        core.step()
        core.add(ask(PROMPT, node=1), streams[1])
        core.add(ask(PROMPT, node=2), streams[2])
        with pytest.raises(EngineBusyError, match="2 sequences are waiting"):
            core.add(ask(PROMPT, node=3), Stream())
        assert core.live == (("run", 0), ("run", 1), ("run", 2))
        drain(core)
        assert all(stream.finish is FinishReason.LENGTH for stream in streams)
        core.add(ask(PROMPT), Stream())
        drain(core)

    def test_admits_by_priority_then_arrival(self, make_core: MakeCore) -> None:
        core = make_core(max_sequences=1)
        order: list[int] = []
        for node, priority in enumerate([0, 1, 5, 1, 5]):

            def sink(item: Any, node: int = node) -> None:
                if item.finish is not None:
                    order.append(node)

            core.add(ask(some_tokens(5, node), node=node, priority=priority), sink)
        drain(core)
        assert order == [2, 4, 1, 3, 0]

    def test_waits_for_memory_instead_of_failing(
        self, make_core: MakeCore, tiny_reference: Any
    ) -> None:
        core = make_core(kv_tokens=40)
        prompts = [some_tokens(20, seed) for seed in range(5)]
        streams = [Stream() for _ in prompts]
        for prompt, stream in zip(prompts, streams, strict=True):
            core.add(ask(prompt), stream)
        core.step()
        assert (core.load.running, core.load.waiting) == (1, 4)
        drain(core)
        for prompt, stream in zip(prompts, streams, strict=True):
            assert_greedy(tiny_reference, prompt, stream.tokens)

    def test_never_runs_more_than_its_width(self, make_core: MakeCore) -> None:
        core = make_core(max_sequences=3)
        for i in range(10):
            core.add(ask(some_tokens(5, i)), Stream())
        widths = set()
        while core.has_work:
            core.step()
            widths.add(core.load.running)
        assert max(widths) == 3


class TestBranches:
    """Sequences of a run beyond its first come after the first ones of all runs."""

    def test_give_their_place_to_the_first_sequence_of_another_run(
        self, make_core: MakeCore, tiny_reference: Any
    ) -> None:
        core = make_core(max_sequences=4)
        branches = [Stream() for _ in range(6)]
        for node, stream in enumerate(branches):
            request = ask(some_tokens(5, node), node=node, run_id="wide", run_began_unix_s=1.0)
            core.add(replace(request, max_tokens=20), stream)
        for _ in range(3):
            core.step()
        late = [Stream() for _ in range(5)]
        for number, stream in enumerate(late):
            prompt = some_tokens(5, 90 + number)
            core.add(ask(prompt, run_id=f"late-{number}", run_began_unix_s=2.0), stream)
        core.step()
        # One sequence of the wide run stays.
        assert [len(stream.tokens) for stream in late] == [1, 1, 1, 0, 0]
        assert core.preemptions == 3
        drain(core)
        core.check_integrity()
        assert core.recomputed_tokens == 0
        for node, stream in enumerate(branches):
            assert_greedy(tiny_reference, some_tokens(5, node), stream.tokens)

    def test_of_two_tenants_with_equal_run_ids_are_told_apart(self, make_core: MakeCore) -> None:
        core = make_core(max_sequences=4, kv_tokens=100)
        for tenant, run, node, began in (
            *(("a", "x", node, 1.0) for node in range(3)),
            ("b", "y", 0, 1.0),
            ("a", "y", 1, 2.0),
        ):
            request = ask(some_tokens(10, node), node=node, run_id=run, tenant=tenant)
            core.add(replace(request, max_tokens=20, run_began_unix_s=began), Stream())
        for _ in range(1000):
            if not core.has_work:
                break
            core.step()
            core.check_integrity()
        assert not core.has_work

    def test_wait_behind_them(self, make_core: MakeCore) -> None:
        core = make_core(max_sequences=1)
        core.add(ask(some_tokens(5), node=1, run_id="wide", run_began_unix_s=1.0), Stream())
        core.step()
        order: list[str] = []

        def sink(item: Any, name: str) -> None:
            if item.finish is not None:
                order.append(name)

        for node in (2, 3):
            request = ask(some_tokens(5, node), node=node, run_id="wide", run_began_unix_s=1.0)
            core.add(request, partial(sink, name="branch"))
        late = ask(some_tokens(5, 9), run_id="late", run_began_unix_s=2.0)
        core.add(late, partial(sink, name="first"))
        # While its first sequence decodes, a run waits with its others; then it is the earlier one.
        core.step()
        drain(core)
        assert order == ["branch", "branch", "first"]


class TestTenants:
    """Share the engine by what they got, however much one of them sends."""

    def busy(self, core: EngineCore, count: int = 12, **fields: Any) -> list[Stream]:
        """A tenant with more than fits, for a while."""
        streams = [Stream() for _ in range(count)]
        for node, stream in enumerate(streams):
            request = ask(some_tokens(5, node), node=node, tenant="loud", run_id="loud")
            core.add(replace(request, **{"max_tokens": 30, **fields}), stream)
        for _ in range(8):
            core.step()
        return streams

    def test_that_got_less_takes_the_place_of_one_that_runs_most(
        self, make_core: MakeCore, tiny_reference: Any
    ) -> None:
        core = make_core(max_sequences=4)
        loud = self.busy(core)
        quiet = Stream()
        core.add(ask(some_tokens(5, 99), tenant="quiet"), quiet)
        core.step()
        assert len(quiet.tokens) == 1
        assert core.load.running == 4
        assert core.preemptions == 1
        drain(core)
        core.check_integrity()
        # Nothing was lost or computed again.
        assert core.recomputed_tokens == 0
        for node, stream in enumerate(loud):
            assert_greedy(tiny_reference, some_tokens(5, node), stream.tokens)

    def test_share_the_batch(self, make_core: MakeCore) -> None:
        core = make_core(max_sequences=4)
        self.busy(core, 40)
        for node in range(40):
            core.add(ask(some_tokens(5, 99 + node), tenant="other", max_tokens=30), Stream())
        core.step()
        running = Counter(run for run, _ in core.live[: core.load.running])
        assert running == {"loud": 2, "run": 2}
        # Nobody is preempted for an equal.
        assert core.preemptions == 2

    def test_that_was_away_has_saved_up_nothing(self, make_core: MakeCore) -> None:
        core = make_core(max_sequences=1)
        run_alone(core, ask(some_tokens(5), tenant="back"))
        self.busy(core, 1, max_tokens=200)
        ended: list[str] = []

        def sink(item: Any, tenant: str) -> None:
            if item.finish is not None:
                ended.append(tenant)

        core.cancel(lambda sequence: True)
        for node in range(8):
            for tenant in ("loud", "back"):
                request = ask(some_tokens(5, node), node=node, tenant=tenant, run_id=tenant)
                core.add(request, partial(sink, tenant=tenant))
        drain(core)
        for turn in range(0, 16, 2):
            assert sorted(ended[turn : turn + 2]) == ["back", "loud"]

    def test_do_not_buy_rank_with_the_length_of_a_chain(self, make_core: MakeCore) -> None:
        core = make_core(max_sequences=1)
        order: list[str] = []

        def sink(item: Any, run: str) -> None:
            if item.finish is not None:
                order.append(run)

        for began, run, height in ((2.0, "chain", 8), (1.0, "short", 1), (2.0, "chain", 7)):
            request = ask(
                some_tokens(5, height), run_id=run, run_began_unix_s=began, priority=height
            )
            core.add(request, partial(sink, run=run))
        drain(core)
        assert order == ["short", "chain", "chain"]

    def test_get_memory_that_others_hold(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=160, max_sequences=8)
        self.busy(core, 6, max_tokens=60)
        quiet = Stream()
        core.add(ask(some_tokens(40, 99), tenant="quiet", max_tokens=20), quiet)
        for _ in range(25):
            core.step()
            core.check_integrity()
        assert quiet.finish is FinishReason.LENGTH
        drain(core)


class TestLongPrompts:
    """Of several chunks, beside the sequences of others."""

    @pytest.fixture
    def core(self, make_core: MakeCore) -> EngineCore:
        core = make_core(prefill_chunk=16)
        # As if a step had room for four tokens.
        core._scheduler._room_beside = lambda width: 4 if width else None
        return core

    def test_are_computed_in_pieces_while_others_decode(self, core: EngineCore) -> None:
        running, long = Stream(), Stream()
        core.add(ask(some_tokens(5), run_id="decoding", max_tokens=40), running)
        core.step()
        core.add(ask(some_tokens(101, 1), run_id="long"), long)
        for step in range(1, 10):
            core.step()
            assert len(running.tokens) == 1 + step
            assert core.load.prefill_tokens == 100 - 4 * step
        drain(core)
        assert long.finish is FinishReason.LENGTH

    def test_do_not_delay_short_ones(self, core: EngineCore) -> None:
        long, short = Stream(), Stream()
        core.add(ask(some_tokens(200, 1), run_id="long"), long)
        core.step()
        core.add(ask(some_tokens(9, 2), run_id="short"), short)
        core.step()
        assert len(short.tokens) == 1
        assert not long.tokens

    def test_have_a_step_to_themselves_where_nobody_else_decodes(self, core: EngineCore) -> None:
        core.add(ask(some_tokens(101, 1), run_id="long"), Stream())
        core.add(ask(some_tokens(101, 1), some_tokens(3), run_id="long"), Stream())
        for step in range(1, 5):
            core.step()
            assert core.load.prefill_tokens == pytest.approx(100 - 16 * step, abs=4)
        drain(core)

    def test_advance_whoever_else_comes(self, core: EngineCore) -> None:
        long = Stream()
        core.add(ask(some_tokens(101, 1), run_id="long"), long)
        for number in range(80):
            core.add(ask(some_tokens(15, 2 + number), run_id=f"short {number}"), Stream())
            core.step()
        assert long.tokens
        drain(core)


class TestLoad:
    def test_counts_what_is_still_to_prefill(self, make_core: MakeCore) -> None:
        core = make_core(prefill_chunk=16, max_sequences=1)
        core.add(ask(some_tokens(41)), Stream())
        assert core.load.prefill_tokens == 41
        core.add(ask(some_tokens(41), some_tokens(9, 1)), Stream())
        assert core.load.prefill_tokens == 41 + 50
        core.step()
        # Without the last token, which is computed along with decoding.
        assert core.load.prefill_tokens == 40 - 16 + 50
        drain(core)
        assert core.load.prefill_tokens == 0

    def test_knows_what_is_cached_on_arrival(self, make_core: MakeCore) -> None:
        core = make_core()
        run_alone(core, ask(PROMPT))
        core.add(ask(PROMPT, some_tokens(7, 1)), Stream())
        assert core.load.prefill_tokens == 7
        drain(core)

    def test_counts_cached_kv_as_free(self, make_core: MakeCore) -> None:
        core = make_core(kv_tokens=100)
        core.add(ask(PROMPT), Stream())
        core.step()
        assert (core.load.kv_free, core.load.kv_evictable) == (100 - 17, 0)
        drain(core)
        assert (core.load.kv_free, core.load.kv_evictable) == (100, 17)
        assert core.load.kv_capacity == 100
        assert core.pool.free_count == 100 - 17

    def test_comes_with_every_chunk(self, make_core: MakeCore) -> None:
        streams = run_together(make_core(), [ask(some_tokens(5, i)) for i in range(3)])
        assert all(c.load.running for s in streams for c in s.chunks[:-1])
        assert {(c.replica, c.epoch) for s in streams for c in s.chunks} == {("local", "epoch")}


async def test_a_stream_begins_with_an_acknowledgement(engine: TorchEngine) -> None:
    request = ask(PROMPT, node=4, attempt=2, emitted=(5, 6))
    stream = await collect(engine, request)
    first = stream.chunks[0]
    assert (first.run_id, first.node, first.attempt, first.offset) == ("run", 4, 2, 2)
    assert (first.tokens, first.text, first.finish) == ((), "", None)
    assert (first.prompt_tokens, first.replica, first.epoch) == (10, "tiny", engine.epoch)
    assert stream.chunks[1].offset == 2


async def test_stats_add_up(engine: TorchEngine) -> None:
    before = engine.stats()
    prompt = some_tokens(30, 999)
    for _ in range(2):
        await collect(engine, ask(prompt))
    after = engine.stats()
    assert after.prompt_tokens - before.prompt_tokens == 60
    assert after.cached_tokens - before.cached_tokens == 29
    assert after.output_tokens - before.output_tokens == 16
    assert after.steps - before.steps == 16
    assert (after.dtype, after.context_length) == ("float32", 512)
    assert 0 < after.kv_used <= after.kv_capacity
    assert engine.cached_prefix(ask(prompt).prompt) == 30

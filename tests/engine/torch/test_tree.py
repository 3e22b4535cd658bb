"""The KV tree and its pool: nothing leaks, whatever comes in whatever order."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plato.engine import FinishReason, GenerateRequest, Prompt, Segment
from plato.engine.torch.pool import KVPool
from plato.engine.torch.tree import KVTree, scope_runs
from tests.engine.conftest import MakeCore
from tests.engine.helpers import Stream, ask, drain, run_alone, some_tokens

WORDS = [some_tokens(length, length) for length in (3, 6, 11)]
"""Few segments, so that random prompts share much."""

segments = st.builds(
    lambda first, rest: (Segment(WORDS[first], public=True), *rest),
    st.integers(0, 1),
    st.lists(st.sampled_from(WORDS), max_size=2),
)
requests = st.builds(
    lambda parts, tenant, budget, priority: ask(
        *parts, tenant=tenant, max_tokens=budget, priority=priority
    ),
    segments,
    st.sampled_from(["a", "b"]),
    st.integers(1, 6),
    st.integers(0, 1),
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), requests),
        st.tuples(st.just("continue"), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("step"), st.integers(1, 4)),
    ),
    min_size=3,
    max_size=25,
)


@pytest.fixture
def expected(make_core: MakeCore) -> Any:
    """The tokens that a request gives alone, on an engine of its own."""

    @cache
    def alone(tokens: tuple[int, ...], budget: int) -> tuple[int, ...]:
        return run_alone(make_core(), ask(tokens, max_tokens=budget)).tokens

    return alone


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(operations=operations, chunk=st.sampled_from([2, 5, 64]), kv_tokens=st.integers(60, 120))
def test_random_operations_leak_nothing_and_change_no_text(
    make_core: MakeCore,
    expected: Any,
    operations: list[tuple[str, Any]],
    chunk: int,
    kv_tokens: int,
) -> None:
    core = make_core(kv_tokens=kv_tokens, prefill_chunk=chunk, max_sequences=4)
    streams: list[tuple[GenerateRequest, Stream]] = []

    def add(request: GenerateRequest) -> None:
        streams.append((request, Stream()))
        core.add(request, streams[-1][1])

    for name, value in operations:
        if name == "add":
            add(value)
        elif name == "continue" and streams:
            # Another part goes on from what an earlier one has by now.
            request, stream = streams[value % len(streams)]
            if len(request.prompt) < 30:
                prompt = request.prompt.extended(Segment(stream.tokens), Segment(WORDS[0]))
                add(ask(*prompt.segments, tenant=prompt.tenant, max_tokens=4))
        elif name == "cancel" and streams:
            victim = streams[value % len(streams)][0]
            core.cancel(lambda sequence, victim=victim: sequence.request is victim)
        elif name == "step":
            for _ in range(value):
                core.step()
        core.check_integrity()
    drain(core)

    for request, stream in streams:
        alone = expected(request.prompt.tokens, request.max_tokens)
        if stream.finish is FinishReason.CANCELLED:
            assert stream.tokens == alone[: len(stream.tokens)]
        else:
            assert stream.finish is FinishReason.LENGTH
            assert stream.tokens == alone
        # What was put back together from several parts is what the prompt says.
        assert 0 <= stream.cached <= len(request.prompt)
    assert core.load.kv_free == kv_tokens


class TestPool:
    def pool(self, capacity: int = 10) -> KVPool:
        return KVPool(
            layers=1,
            heads=1,
            head_dim=2,
            capacity=capacity,
            dtype=torch.float32,
            device=torch.device("cpu"),
        )

    def test_hands_out_every_slot_once(self) -> None:
        pool = self.pool()
        slots = np.concatenate([pool.allocate(4), pool.allocate(6)])
        assert sorted(slots.tolist()) == list(range(10))
        assert pool.free_count == 0
        pool.free(slots[2:5])
        assert pool.free_slots() == frozenset(slots[2:5].tolist())

    def test_refuses_more_than_there_is_in_either_direction(self) -> None:
        pool = self.pool()
        with pytest.raises(AssertionError, match="11 KV slots asked, 10 free"):
            pool.allocate(11)
        with pytest.raises(AssertionError, match="freed twice"):
            pool.free(np.array([0]))


class TestEviction:
    def hold(self, tree: KVTree, pool: KVPool, *words: tuple[int, ...]) -> Prompt:
        prompt = Prompt(tuple(Segment(word) for word in words))
        node, found = tree.lock(prompt, prompt.tokens)
        tree.keep(node, prompt, prompt.tokens, found, pool.allocate(len(prompt.tokens) - found))
        tree.unlock(node, None)
        return prompt

    def test_takes_the_least_recently_used_leaves_and_no_more_than_needed(self) -> None:
        pool = TestPool().pool(12)
        tree = KVTree(pool)
        old, young = self.hold(tree, pool, (1, 2), (3, 4)), self.hold(tree, pool, (1, 2), (5, 6))
        other = self.hold(tree, pool, (7, 8, 9))
        assert pool.free_count == 3
        assert tree.ensure_free(4)
        assert [tree.cached_prefix(prompt) for prompt in (old, young, other)] == [2, 4, 3]
        assert tree.ensure_free(12)
        assert list(tree.nodes()) == []

    def test_spares_what_is_locked_and_what_stands_above_it(self) -> None:
        pool = TestPool().pool(12)
        tree = KVTree(pool)
        needed = self.hold(tree, pool, (1, 2), (3, 4))
        self.hold(tree, pool, (1, 2), (5, 6))
        node, found = tree.lock(needed, needed.tokens)
        assert found == 4
        assert tree.evictable() == 2
        assert not tree.ensure_free(9)
        assert tree.cached_prefix(needed) == 4
        assert pool.free_count == 6, "nothing is evicted in vain"
        assert tree.ensure_free(8)
        tree.unlock(node, None)
        assert tree.evictable() == 4

    def test_what_two_have_computed_is_kept_once(self) -> None:
        pool = TestPool().pool(12)
        tree = KVTree(pool)
        prompt = Prompt((Segment((1, 2, 3, 4)),))
        for end in (3, 4):
            tree.keep(tree.root, prompt, prompt.tokens[:end], 0, pool.allocate(end))
        assert tree.cached_prefix(prompt) == 4
        assert pool.free_count == 8


def test_positions_are_split_by_scope() -> None:
    prompt = Prompt((Segment((1, 2), public=True), Segment((3,))), "t")
    assert list(scope_runs(prompt, 0, 5)) == [("", 0, 2), ("tenant:t", 2, 5)]
    assert list(scope_runs(prompt, 1, 2)) == [("", 1, 2)]
    assert list(scope_runs(prompt, 3, 5)) == [("tenant:t", 3, 5)]
    assert list(scope_runs(Prompt((Segment((1,)),)), 0, 1)) == [("tenant:", 0, 1)]

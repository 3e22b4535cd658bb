"""Many short requests over a budget that forces eviction and preemption; in `make soak`, more."""

from __future__ import annotations

import gc
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest

from plato.engine import Chunk, FinishReason, GenerateRequest, SamplingParams
from plato.engine.torch.core import EngineCore
from plato.engine.torch.node import TreeNode
from plato.engine.torch.sequence import Sequence
from tests.engine.conftest import MakeCore
from tests.engine.helpers import ask, some_tokens

KV_TOKENS = 300
IN_FLIGHT = 24
PREFIXES = [some_tokens(length, length) for length in (4, 8, 12, 16)]


@dataclass
class Answer:
    """What came of one request; keeps no chunks."""

    request: GenerateRequest
    output: tuple[int, ...] = ()
    finish: FinishReason | None = None

    def __call__(self, item: Chunk | Exception) -> None:
        assert isinstance(item, Chunk)
        assert self.finish is None, "something came after the end"
        assert item.offset == len(self.output)
        self.output += item.tokens
        self.finish = item.finish


def draw_request(chance: random.Random, last: list[Answer]) -> GenerateRequest:
    """A few shared beginnings, own ends; now and then a continuation of another's output."""
    parts: list[Any] = [chance.choice(PREFIXES), some_tokens(chance.randint(1, 6), chance.random())]
    if last and chance.random() < 0.3:
        other = chance.choice(last)
        parts = [other.request.prompt.tokens[:20], other.output[: chance.randint(0, 30)], parts[1]]
    sampled = SamplingParams(temperature=0.8, seed=chance.randrange(100))
    return ask(
        *parts,
        run_id=f"run-{chance.randrange(40)}",
        node=chance.randrange(1000),
        tenant=chance.choice(["a", "b"]),
        max_tokens=chance.choice([1, 2, 3, 4, 50]),
        run_began_unix_s=float(chance.randrange(3)),
        priority=chance.randrange(3),
        keep=chance.choice([None, 0, 1, 4]),
        sampling=chance.choice([SamplingParams(), sampled]),
    )


def play(core: EngineCore, count: int, chance: random.Random) -> dict[FinishReason | None, int]:
    """Answer `count` requests, some of which are cancelled on the way; how they ended."""
    ends: dict[FinishReason | None, int] = {}
    live: list[Answer] = []
    asked = 0
    while asked < count or live:
        while asked < count and len(live) < IN_FLIGHT:
            live.append(Answer(draw_request(chance, live)))
            core.add(live[-1].request, live[-1])
            asked += 1
        core.step()
        if chance.random() < 0.1:
            victim = chance.choice(live).request
            core.cancel(lambda sequence, victim=victim: sequence.request is victim)
        if chance.random() < 0.05:
            core.release(f"run-{chance.randrange(40)}")
        if chance.random() < 0.02:
            core.check_integrity()
        for answer in live:
            if answer.finish is FinishReason.LENGTH:
                assert len(answer.output) == answer.request.max_tokens
            if answer.finish is not None:
                ends[answer.finish] = ends.get(answer.finish, 0) + 1
        live = [answer for answer in live if answer.finish is None]
    return ends


def objects() -> Counter[type]:
    """How many objects there are of every kind that can hold others."""
    gc.collect()
    return Counter(map(type, gc.get_objects()))


@pytest.mark.slow
@pytest.mark.parametrize("count", [500, pytest.param(2000, marks=pytest.mark.soak)])
def test_every_request_is_answered_and_memory_stays_flat(make_core: MakeCore, count: int) -> None:
    core = make_core(kv_tokens=KV_TOKENS, max_sequences=16, prefill_chunk=64)
    chance = random.Random(0)
    ends = play(core, count // 2, chance)
    core.check_integrity()
    before = objects()
    for finish, number in play(core, count // 2, chance).items():
        ends[finish] = ends.get(finish, 0) + number
    core.check_integrity()

    assert sum(ends.values()) == count
    assert ends[FinishReason.LENGTH] > count // 2
    assert ends[FinishReason.CANCELLED] > count // 50
    assert core.preemptions > count // 200
    assert core.recomputed_tokens > 0
    assert core.tree.evicted > 10 * KV_TOKENS

    assert not core.has_work
    assert core.load.kv_free == KV_TOKENS
    # What the first half of the requests left behind, the second half replaces.
    after = objects()
    assert after[Sequence] == before[Sequence]
    assert after[TreeNode] - before[TreeNode] <= KV_TOKENS
    assert after.total() - before.total() < 1000

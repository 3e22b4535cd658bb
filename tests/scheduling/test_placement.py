"""The lowest cost wins: what is cached, what waits there, who decodes there."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plato.engine import KVEventBatch, Load, Prompt, Replica, Segment, StoredPrefix
from plato.scheduling.placement import (
    KVAware,
    KVIndex,
    Placement,
    PlacementRequest,
    Policy,
    ReplicaView,
)
from plato.scheduling.placement.kv_aware import FULL_SHARE, SEQUENCE_SHARE, WAITING_SHARE
from plato.scheduling.placement.replicas import BELIEF_S
from plato.scheduling.placement.state import ReplicaState

A, B = Replica("a"), Replica("b")
BOTH = (A, B)


def prompt(*lengths: int, first: int = 0, tenant: str = "") -> Prompt:
    """Segments of these lengths; equal up to where their tokens or tenants differ."""
    segments, token = [], first
    for length in lengths:
        segments.append(Segment(tuple(range(token, token + length))))
        token += length
    return Prompt(tuple(segments), tenant)


@pytest.fixture
def placement() -> Placement:
    placement = Placement(seed=1)
    placement.choose(prompt(1), BOTH)
    for replica in BOTH:
        placement.replicas.observe(replica.name, "e1", Load(kv_free=100_000))
    return placement


def test_without_replicas_the_pool_decides() -> None:
    choice = Placement().choose(prompt(10), ())
    assert (choice.replica, choice.predicted_tokens) == (None, 0)
    with Placement().booked(choice) as booking:
        booking.prefilled()


def test_a_free_replica_that_holds_the_prefix_is_chosen(placement: Placement) -> None:
    placement.replicas.learn(prompt(100, 50), "b")
    for _ in range(20):
        choice = placement.choose(prompt(100, 50, 10), BOTH)
        assert (choice.replica, choice.predicted_tokens) == ("b", 150)


def test_the_last_token_of_a_prompt_is_never_predicted(placement: Placement) -> None:
    placement.replicas.learn(prompt(100), "a")
    assert placement.choose(prompt(100), (A,)).predicted_tokens == 99


def test_a_prefix_is_worth_no_more_than_the_wait_for_it(placement: Placement) -> None:
    placement.replicas.learn(prompt(100), "a")
    asked = prompt(100, 10)
    placement.replicas.observe("a", "e1", Load(kv_free=100_000, prefill_tokens=99))
    assert placement.choose(asked, BOTH).replica == "a"
    placement.replicas.observe("a", "e1", Load(kv_free=100_000, prefill_tokens=101))
    assert placement.choose(asked, BOTH).replica == "b"
    placement.replicas.observe(
        "a", "e1", Load(kv_free=100_000, running=100 // (SEQUENCE_SHARE + 10))
    )
    assert placement.choose(asked, BOTH).replica == "a"
    placement.replicas.observe("a", "e1", Load(kv_free=100_000, running=0, waiting=1))
    assert WAITING_SHARE > 100
    assert placement.choose(asked, BOTH).replica == "b"


def test_computing_a_prefix_again_where_many_decode_costs_each_of_them(
    placement: Placement,
) -> None:
    placement.replicas.learn(prompt(100), "a")
    asked = prompt(100, 10)
    for running in (1, 8, 16):
        # As busy as each other, and as much to compute as waits there for every sequence.
        busy = Load(kv_free=100_000, running=running)
        placement.replicas.observe("b", "e1", busy)
        placement.replicas.observe("a", "e1", replace(busy, prefill_tokens=100 * (1 + running) - 1))
        assert placement.choose(asked, BOTH).replica == "a"
        placement.replicas.observe("a", "e1", replace(busy, prefill_tokens=100 * (1 + running) + 1))
        assert placement.choose(asked, BOTH).replica == "b"


def test_what_is_pushed_out_of_a_cache_counts_as_much_as_what_is_computed(
    placement: Placement,
) -> None:
    # Whatever "b" computes takes the place of something that is cached there; "a" has room.
    placement.replicas.observe("b", "e1", Load(kv_free=100_000, kv_evictable=100_000))
    asked = prompt(100, 10)
    for queued, expected in ((109, "a"), (111, "b")):
        placement.replicas.observe("a", "e1", Load(kv_free=100_000, prefill_tokens=queued))
        assert placement.choose(asked, BOTH).replica == expected
    # Half of it fits what holds nothing.
    half = Load(kv_free=100_000, kv_evictable=100_000 - 55 - 40)
    placement.replicas.observe("b", "e1", half)
    for queued, expected in ((54, "a"), (56, "b")):
        placement.replicas.observe("a", "e1", Load(kv_free=100_000, prefill_tokens=queued))
        assert placement.choose(asked, BOTH, output=40).replica == expected


def test_one_hot_replica_does_not_turn_affinity_off_for_others(placement: Placement) -> None:
    placement.replicas.observe("a", "e1", Load(kv_free=100_000, running=16, waiting=100))
    placement.replicas.learn(prompt(100), "b")
    third = Replica("c")
    choice = placement.choose(prompt(100, 10), (*BOTH, third))
    assert choice.replica == "b"


def test_siblings_stay_together_while_there_is_room_and_spread_when_there_is_not(
    placement: Placement,
) -> None:
    shared = prompt(200)
    placement.replicas.learn(shared, "a")
    asked = [shared.extended(Segment((1000 + number,) * 5)) for number in range(20)]
    chosen: list[str | None] = []
    with ExitStack() as booked:
        for one in asked:
            choice = placement.choose(one, BOTH)
            chosen.append(choice.replica)
            booked.enter_context(placement.booked(choice))
    first_b = chosen.index("b")
    assert 4 < first_b < 18
    assert {"a", "b"} == set(chosen[first_b:])


def test_what_has_ended_weighs_no_more(placement: Placement) -> None:
    asked = prompt(100)
    choice = placement.choose(asked, (A,))
    with placement.booked(choice) as booking:
        assert placement.choose(prompt(90, first=5000), BOTH).replica == "b"
        booking.prefilled()
        booking.prefilled()
        with_prefix = placement.choose(asked.extended(Segment((7,))), BOTH)
        assert with_prefix.replica == "a"
    chosen = {placement.choose(prompt(90, first=5000), BOTH).replica for _ in range(40)}
    assert chosen == {"a", "b"}


def test_another_epoch_of_a_replica_voids_what_it_held(placement: Placement) -> None:
    placement.replicas.learn(prompt(100), "a")
    placement.replicas.observe("a", "e2", Load())
    assert placement.replicas.cached(prompt(100, 10), "a") == 0
    placement.replicas.learn(prompt(100), "a")
    assert placement.replicas.cached(prompt(100, 10), "a") == 100


def test_what_was_placed_before_the_epoch_was_known_counts() -> None:
    placement = Placement()
    asked = prompt(100)
    choice = placement.choose(asked, (A,))
    with placement.booked(choice):
        assert placement.choose(asked.extended(Segment((7,))), (A,)).predicted_tokens == 100
        placement.replicas.observe("a", "e1", Load())
        assert placement.choose(asked.extended(Segment((7,))), (A,)).predicted_tokens == 100


def test_a_replica_that_is_gone_is_forgotten(placement: Placement) -> None:
    placement.replicas.learn(prompt(100), "a")
    placement.choose(prompt(1), (B,))
    placement.choose(prompt(1), BOTH)
    placement.replicas.observe("a", "e1", Load())
    assert placement.replicas.cached(prompt(100, 10), "a") == 0
    placement.replicas.observe("never seen", "e1", Load())


def test_tenants_share_no_prefix(placement: Placement) -> None:
    placement.replicas.learn(prompt(100, tenant="x"), "a")
    assert placement.replicas.cached(prompt(100, 10, tenant="x"), "a") == 100
    assert placement.replicas.cached(prompt(100, 10, tenant="y"), "a") == 0


def test_ties_are_broken_at_random_and_the_same_for_a_seed() -> None:
    def choices(seed: int) -> list[str | None]:
        placement = Placement(seed=seed)
        return [placement.choose(prompt(10), BOTH).replica for _ in range(30)]

    assert choices(1) == choices(1)
    assert set(choices(1)) == {"a", "b"}


def test_an_index_is_bounded_and_the_least_used_go_first() -> None:
    index = KVIndex(max_chains=10)

    def hold(asked: Prompt) -> None:
        for chain in asked.hashes:
            index.hold("a", chain, len(asked))

    hold(prompt(100))
    for number in range(1, 30):
        hold(prompt(10, first=1000 * number))
        assert index.cached(prompt(100, 10)) == {"a": 100}
    assert index.cached(prompt(10, 5, first=1000)) == {}
    assert index.cached(prompt(10, 5, first=29_000)) == {"a": 10}
    assert len(index) == 10
    index.forget("a")
    assert len(index) == 0


def test_memory_that_must_be_waited_for_is_worth_the_longer_prefix_only(
    placement: Placement,
) -> None:
    # The replica with the prefix has memory for ten more tokens of prompt and forty of output.
    placement.replicas.observe("a", "e1", Load(kv_free=50, kv_capacity=10_000))
    for length in (FULL_SHARE - 5, FULL_SHARE + 5):
        held = prompt(length, first=length * 1000)
        placement.replicas.learn(held, "a")
        asked = held.extended(Segment((7,) * 10))
        assert placement.choose(asked, BOTH, output=40).replica == "a"
        waited_for = placement.choose(asked, BOTH, output=41).replica == "a"
        assert waited_for == (length > FULL_SHARE)


def test_a_replica_whose_whole_budget_is_too_small_is_passed_over(placement: Placement) -> None:
    placement.replicas.learn(prompt(1000), "a")
    asked = prompt(1000, 10)
    placement.replicas.observe("a", "e1", Load(kv_free=1100, kv_capacity=1100))
    assert placement.choose(asked, BOTH, output=90).replica == "a"
    assert placement.choose(asked, BOTH, output=91).replica == "b"
    assert placement.choose(asked, (A,), output=91).replica == "a", "it says itself what is wrong"


def held(*chains: bytes) -> tuple[StoredPrefix, ...]:
    return tuple(StoredPrefix(chain, 100) for chain in chains)


def test_kv_events_replace_what_was_believed(placement: Placement) -> None:
    asked = prompt(100, 10)
    (first, _) = asked.hashes
    assert not placement.replicas.apply("a", "e1", KVEventBatch(4, stored=held(first)))
    assert placement.replicas.apply("a", "e1", KVEventBatch(4, stored=held(first), snapshot=True))
    assert placement.replicas.cached(asked, "a") == 100
    assert placement.replicas.apply("a", "e1", KVEventBatch(5, removed=(first,)))
    assert placement.replicas.cached(asked, "a") == 0
    assert placement.replicas.apply("a", "e1", KVEventBatch(6, stored=held(first)))
    assert placement.replicas.cached(asked, "a") == 100


def test_a_gap_or_another_epoch_needs_a_snapshot(placement: Placement) -> None:
    assert placement.replicas.apply("a", "e1", KVEventBatch(1, snapshot=True))
    assert placement.replicas.apply("a", "e1", KVEventBatch(1)), "what is known already is no gap"
    assert not placement.replicas.apply("a", "e1", KVEventBatch(3))
    assert not placement.replicas.apply("a", "e2", KVEventBatch(2))
    placement.replicas.observe("a", "e2", Load())
    assert not placement.replicas.apply("a", "e2", KVEventBatch(1))
    assert placement.replicas.apply("a", "e2", KVEventBatch(1, snapshot=True))
    assert placement.replicas.apply("a", "e2", KVEventBatch(2))


def test_what_was_sent_a_moment_ago_outlives_a_snapshot_that_does_not_know_it_yet() -> None:
    now = [0.0]
    placement = Placement(clock=lambda: now[0])
    placement.choose(prompt(1), (A,))
    placement.replicas.learn(prompt(100), "a")
    placement.replicas.apply("a", "e1", KVEventBatch(1, snapshot=True))
    assert placement.replicas.cached(prompt(100, 10), "a") == 100
    now[0] = 60.0
    placement.replicas.apply("a", "e1", KVEventBatch(2))
    assert placement.replicas.cached(prompt(100, 10), "a") == 0


changes = st.lists(
    st.one_of(
        st.builds(
            lambda load: lambda state: setattr(state, "load", load),
            st.builds(Load, *[st.integers(0, 50)] * 4),
        ),
        st.builds(
            lambda *numbers: (
                lambda state: state.book(prefill=numbers[0], kv=numbers[1], suspects=numbers[2])
            ),
            *[st.integers(-3, 50)] * 3,
        ),
        st.just(lambda state: state.enter("run")),
        st.just(lambda state: (state.enter("run"), state.leave("run", state.reports))),
        st.builds(
            lambda until: lambda state: setattr(state, "avoid_until", until), st.floats(0, 2)
        ),
    ),
    max_size=20,
)


@given(changes)
def test_what_a_decision_sees_of_a_replica_is_never_out_of_date(
    steps: list[Callable[[ReplicaState], None]],
) -> None:
    looked_at, left_alone = ReplicaState("a"), ReplicaState("a")
    for step in steps:
        step(looked_at)
        step(left_alone)
        looked_at.view(1.0)
    assert looked_at.view(1.0) == left_alone.view(1.0)


views = st.lists(
    st.builds(
        ReplicaView,
        st.sampled_from([f"r{number}" for number in range(8)]),
        cached=st.integers(0, 400),
        prefill=st.integers(0, 3000),
        sequences=st.integers(0, 40),
        waiting=st.integers(0, 10),
        free=st.none() | st.integers(0, 2000),
        unused=st.none() | st.integers(-100, 2000),
        capacity=st.none() | st.integers(0, 2000),
        suspects=st.integers(0, 1),
        avoided=st.booleans(),
    ),
    min_size=1,
    unique_by=lambda view: view.name,
)
requests = st.builds(
    PlacementRequest,
    st.text(max_size=3),
    prompt=st.integers(400, 800).map(prompt),
    output=st.integers(1, 400),
)


@given(requests, views, st.integers(), st.sampled_from([None, 0.1]))
def test_each_replica_is_ranked_once_and_the_same_for_a_seed(
    request: PlacementRequest, replicas: list[ReplicaView], seed: int, move_cost: float | None
) -> None:
    policy = KVAware(move_cost)
    ranked = policy.rank(request, replicas, random.Random(seed))
    assert sorted(ranked) == sorted(view.name for view in replicas)
    assert ranked == policy.rank(request, replicas, random.Random(seed))


@given(requests, views, st.integers())
def test_no_budget_is_exceeded_and_no_failed_replica_chosen_while_there_are_others(
    request: PlacementRequest, replicas: list[ReplicaView], seed: int
) -> None:
    by_name = {view.name: view for view in replicas}
    first = by_name[KVAware().rank(request, replicas, random.Random(seed))[0]]
    needed = len(request.prompt) + request.output

    def fits(view: ReplicaView) -> bool:
        return view.capacity is None or view.capacity >= needed

    def is_short(view: ReplicaView) -> bool:
        return view.free is not None and view.free < needed - view.cached

    def roomy(view: ReplicaView) -> float:
        return inf if view.unused is None else view.unused

    sound = [view for view in replicas if not view.avoided]
    assert not first.avoided or not sound
    if first in sound:
        assert fits(first) or not any(map(fits, sound))
    # Nobody in the same state with more of the prompt and less to do is passed over.
    for view in replicas:
        better = (
            (view.avoided, not fits(view)) <= (first.avoided, not fits(first))
            and view.cached > first.cached
            and view.prefill <= first.prefill
            and view.sequences <= first.sequences
            and view.waiting <= first.waiting
            and is_short(view) <= is_short(first)
            and roomy(view) >= roomy(first)
            and view.suspects <= first.suspects
        )
        assert not better


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["e1", "e2"])), max_size=30))
def test_a_past_epoch_is_never_predicted_from(steps: list[tuple[int, str]]) -> None:
    placement = Placement()
    asked = prompt(100, 10)
    placement.choose(asked, (A,))
    alive, holds = "", False
    for kind, epoch in steps:
        if kind == 0:
            placement.replicas.observe("a", epoch, Load())
            holds = holds and alive in ("", epoch)
            alive = epoch
        elif kind == 1:
            placement.replicas.learn(prompt(100), "a")
            holds = True
        else:
            snapshot = KVEventBatch(1, stored=held(asked.hashes[0]), snapshot=True)
            placement.replicas.apply("a", epoch, snapshot)
            alive, holds = epoch, True
        assert (placement.replicas.cached(asked, "a") > 0) == holds


def test_a_long_prefix_is_moved_where_its_holder_is_full_and_a_short_one_computed() -> None:
    placement = Placement(KVAware(move_cost=0.1))
    placement.choose(prompt(1), BOTH)
    for replica, running in ((A, 16), (B, 0)):
        placement.replicas.observe(replica.name, "e1", Load(running=running, kv_free=100_000))
    long, short = prompt(1000), prompt(100, first=5000)
    stored = (StoredPrefix(long.hashes[0], 1000), StoredPrefix(short.hashes[0], 100))
    placement.replicas.apply("a", "e1", KVEventBatch(1, stored=stored, snapshot=True))
    choice = placement.choose(prompt(1000, 10), BOTH)
    assert (choice.replica, choice.source, choice.predicted_tokens) == ("b", "a", 1000)
    choice = placement.choose(prompt(100, 10, first=5000), BOTH)
    assert (choice.replica, choice.source, choice.predicted_tokens) == ("b", "", 0)
    placement.replicas.observe("a", "e1", Load(running=1, kv_free=100_000))
    choice = placement.choose(prompt(1000, 10), BOTH)
    assert (choice.replica, choice.source, choice.predicted_tokens) == ("a", "", 1000)


def test_kv_that_no_event_confirms_is_not_moved() -> None:
    placement = Placement(KVAware(move_cost=0.1))
    placement.choose(prompt(1), BOTH)
    for replica, running in ((A, 64), (B, 0)):
        placement.replicas.observe(replica.name, "e1", Load(running=running, kv_free=100_000))
    # It was sent there, and may still be in prefill.
    placement.replicas.learn(prompt(1000), "a")
    choice = placement.choose(prompt(1000, 10), BOTH)
    assert (choice.replica, choice.source, choice.predicted_tokens) == ("b", "", 0)


@pytest.mark.hostile
def test_prefixes_that_no_event_ever_confirms_are_forgotten() -> None:
    now = [0.0]
    placement = Placement(clock=lambda: now[0])
    placement.choose(prompt(1), BOTH)
    for number in range(1000):
        placement.replicas.learn(prompt(10, first=100 * number), "a")
        now[0] += 1.0
    state = placement.replicas._states["a"]
    assert len(state.unconfirmed) <= BELIEF_S + 1
    assert len(placement.replicas._index.held_by("a")) == len(state.unconfirmed)


def test_without_moving_a_prefix_is_worth_its_computation() -> None:
    placement = Placement()
    placement.choose(prompt(1), BOTH)
    placement.replicas.observe("a", "e1", Load(running=16, kv_free=100_000))
    placement.replicas.learn(prompt(1000), "a")
    choice = placement.choose(prompt(1000, 10), BOTH)
    assert (choice.replica, choice.source) == ("a", "")


class Recording(Policy):
    """Takes the last replica, and notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def rank(
        self, sequence: PlacementRequest, replicas: Sequence[ReplicaView], chance: random.Random
    ) -> list[str]:
        return [view.name for view in reversed(replicas)]

    def placed(self, sequence: PlacementRequest, replica: str) -> None:
        self.calls.append(("placed", sequence.run_id, replica))

    def forget(self, replica: str) -> None:
        self.calls.append(("forget", replica))


def test_another_policy_decides_and_learns_where_sequences_go_and_which_replicas_are_gone() -> None:
    policy = Recording()
    placement = Placement(policy)
    choice = placement.choose(prompt(10), BOTH, run_id="r1")
    assert (choice.replica, choice.ranked, choice.source) == ("b", ("b", "a"), "")
    with placement.booked(choice):
        assert policy.calls == [("placed", "r1", "b")]
    placement.replicas.observe("a", "e1", Load())
    placement.replicas.observe("a", "e2", Load())
    placement.choose(prompt(10), (A,))
    assert policy.calls[1:] == [("forget", "a"), ("forget", "b")]


def test_kv_of_another_model_promises_nothing(placement: Placement) -> None:
    """While an application is updated, both models may stand behind the names of replicas."""
    old, new = (replace(prompt(100, 50), fingerprint=model) for model in ("old", "new"))
    stored = tuple(StoredPrefix(*each) for each in zip(old.hashes, (100, 150), strict=True))
    placement.replicas.apply("a", "e1", KVEventBatch(0, stored=stored, snapshot=True))
    assert placement.choose(old.extended(Segment((1,))), BOTH).predicted_tokens == 150
    choices = [placement.choose(new.extended(Segment((1,))), BOTH) for _ in range(30)]
    assert {choice.replica for choice in choices} == {"a", "b"}
    assert not any(choice.predicted_tokens or choice.source for choice in choices)

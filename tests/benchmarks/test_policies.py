"""Policies of other systems, and choosing among them by the name of a run."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.policies import POLICIES, ByRunName, ConsistentHash, PrefixTree
from plato.engine import Prompt, Replica, Segment
from plato.scheduling.placement import Placement, PlacementRequest, ReplicaView

BOTH = (Replica("a"), Replica("b"))


def prompt(length: int, first: int = 0) -> Prompt:
    return Prompt((Segment(tuple(range(first, first + length))),))


requests = st.builds(
    PlacementRequest,
    st.sampled_from(sorted(POLICIES)).map("{}-1".format),
    prompt=st.integers(400, 800).map(prompt),
    output=st.integers(1, 400),
)
views = st.lists(
    st.builds(
        ReplicaView,
        st.sampled_from([f"r{number}" for number in range(8)]),
        cached=st.integers(0, 400),
        sequences=st.integers(0, 200),
    ),
    min_size=1,
    unique_by=lambda view: view.name,
)


@given(requests, views, st.integers())
def test_every_policy_ranks_each_replica_once_and_the_same_for_a_seed(
    request: PlacementRequest, replicas: list[ReplicaView], seed: int
) -> None:
    policy = ByRunName()
    policy.placed(request, replicas[0].name)
    ranked = policy.rank(request, replicas, random.Random(seed))
    assert sorted(ranked) == sorted(view.name for view in replicas)
    assert ranked == policy.rank(request, replicas, random.Random(seed))


@pytest.mark.parametrize("run_id", ["one", "another", "a third"])
def test_a_run_stays_on_one_replica_under_consistent_hashing(run_id: str) -> None:
    placement = Placement(ConsistentHash())
    chosen = {placement.choose(prompt(n), BOTH, run_id=run_id).replica for n in range(1, 20)}
    assert len(chosen) == 1


def test_a_prefix_tree_follows_what_was_sent_until_the_replica_is_gone() -> None:
    placement = Placement(PrefixTree(), seed=1)
    choice = placement.choose(prompt(100), BOTH)
    with placement.booked(choice):
        pass
    longer = prompt(100).extended(Segment((7,)))
    assert {placement.choose(longer, BOTH).replica for _ in range(20)} == {choice.replica}
    (other,) = (replica for replica in BOTH if replica.name != choice.replica)
    placement.choose(prompt(1), (other,))
    assert {placement.choose(longer, BOTH).replica for _ in range(20)} == {"a", "b"}


def test_each_run_is_placed_by_the_policy_in_its_name() -> None:
    placement = Placement(ByRunName(), seed=1)
    placement.choose(prompt(1), BOTH, run_id="random-0")
    placement.replicas.learn(prompt(100), "a")
    longer = prompt(100).extended(Segment((7,)))

    def chosen(run_id: str) -> set[str | None]:
        return {placement.choose(longer, BOTH, run_id=run_id).replica for _ in range(20)}

    assert chosen("kv_aware-1") == {"a"}
    assert chosen("random-1") == {"a", "b"}

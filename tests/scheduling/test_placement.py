"""The lowest cost wins: what is cached, what waits there, who decodes there."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from plato.engine import Load, Prompt, Segment
from plato.scheduling import placement as placement_module
from plato.scheduling.placement import SEQUENCE_SHARE, Placement
from plato.scheduling.protocol import Replica

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
        placement.observe(replica.name, "e1", Load())
    return placement


def test_without_replicas_the_pool_decides() -> None:
    choice = Placement().choose(prompt(10), ())
    assert (choice.replica, choice.predicted_tokens) == (None, 0)
    with Placement().booked(prompt(10), choice) as booking:
        booking.prefilled()


def test_a_free_replica_that_holds_the_prefix_is_chosen(placement: Placement) -> None:
    placement.learn(prompt(100, 50), "b", "e1")
    for _ in range(20):
        choice = placement.choose(prompt(100, 50, 10), BOTH)
        assert (choice.replica, choice.predicted_tokens) == ("b", 150)


def test_the_last_token_of_a_prompt_is_never_predicted(placement: Placement) -> None:
    placement.learn(prompt(100), "a", "e1")
    assert placement.choose(prompt(100), (A,)).predicted_tokens == 99


def test_a_prefix_is_worth_no_more_than_the_wait_for_it(placement: Placement) -> None:
    placement.learn(prompt(100), "a", "e1")
    asked = prompt(100, 10)
    placement.observe("a", "e1", Load(prefill_tokens=99))
    assert placement.choose(asked, BOTH).replica == "a"
    placement.observe("a", "e1", Load(prefill_tokens=101))
    assert placement.choose(asked, BOTH).replica == "b"
    placement.observe("a", "e1", Load(running=100 // SEQUENCE_SHARE))
    assert placement.choose(asked, BOTH).replica == "a"
    placement.observe("a", "e1", Load(running=2, waiting=100 // SEQUENCE_SHARE))
    assert placement.choose(asked, BOTH).replica == "b"


def test_one_hot_replica_does_not_turn_affinity_off_for_others(placement: Placement) -> None:
    placement.observe("a", "e1", Load(running=16, waiting=100))
    placement.learn(prompt(100), "b", "e1")
    third = Replica("c")
    choice = placement.choose(prompt(100, 10), (*BOTH, third))
    assert choice.replica == "b"


def test_siblings_stay_together_while_there_is_room_and_spread_when_there_is_not(
    placement: Placement,
) -> None:
    shared = prompt(200)
    placement.learn(shared, "a", "e1")
    asked = [shared.extended(Segment((1000 + number,) * 5)) for number in range(20)]
    chosen: list[str | None] = []
    with ExitStack() as booked:
        for one in asked:
            choice = placement.choose(one, BOTH)
            chosen.append(choice.replica)
            booked.enter_context(placement.booked(one, choice))
    first_b = chosen.index("b")
    assert 2 < first_b < 12
    assert {"a", "b"} == set(chosen[first_b:])


def test_what_has_ended_weighs_no_more(placement: Placement) -> None:
    asked = prompt(100)
    choice = placement.choose(asked, (A,))
    with placement.booked(asked, choice) as booking:
        assert placement.choose(prompt(90, first=5000), BOTH).replica == "b"
        booking.prefilled()
        booking.prefilled()
        with_prefix = placement.choose(asked.extended(Segment((7,))), BOTH)
        assert with_prefix.replica == "a"
    chosen = {placement.choose(prompt(90, first=5000), BOTH).replica for _ in range(40)}
    assert chosen == {"a", "b"}


def test_another_life_of_a_replica_voids_what_it_held(placement: Placement) -> None:
    placement.learn(prompt(100), "a", "e1")
    placement.observe("a", "e2", Load())
    assert placement.cached(prompt(100, 10), "a") == 0
    placement.learn(prompt(100), "a", "e2")
    assert placement.cached(prompt(100, 10), "a") == 100


def test_a_handle_of_another_epoch_is_void(placement: Placement) -> None:
    placement.learn(prompt(100), "a", "e0")
    assert placement.cached(prompt(100, 10), "a") == 0


def test_what_was_placed_before_the_epoch_was_known_counts() -> None:
    placement = Placement()
    asked = prompt(100)
    choice = placement.choose(asked, (A,))
    with placement.booked(asked, choice):
        assert placement.choose(asked.extended(Segment((7,))), (A,)).predicted_tokens == 100
        placement.observe("a", "e1", Load())
        assert placement.choose(asked.extended(Segment((7,))), (A,)).predicted_tokens == 100


def test_a_replica_that_is_gone_is_forgotten(placement: Placement) -> None:
    placement.learn(prompt(100), "a", "e1")
    placement.choose(prompt(1), (B,))
    placement.choose(prompt(1), BOTH)
    placement.observe("a", "e1", Load())
    assert placement.cached(prompt(100, 10), "a") == 0
    placement.observe("never seen", "e1", Load())


def test_tenants_share_no_prefix(placement: Placement) -> None:
    placement.learn(prompt(100, tenant="x"), "a", "e1")
    assert placement.cached(prompt(100, 10, tenant="x"), "a") == 100
    assert placement.cached(prompt(100, 10, tenant="y"), "a") == 0


def test_chains_are_bounded_and_the_least_used_go_first(
    placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement_module, "MAX_CHAINS", 10)
    placement.learn(prompt(100), "a", "e1")
    for number in range(1, 30):
        placement.learn(prompt(10, first=1000 * number), "a", "e1")
        assert placement.cached(prompt(100, 10), "a") == 100
    assert placement.cached(prompt(10, 5, first=1000), "a") == 0
    assert placement.cached(prompt(10, 5, first=29_000), "a") == 10


def test_ties_are_broken_at_random_and_the_same_for_a_seed() -> None:
    def choices(seed: int) -> list[str | None]:
        placement = Placement(seed)
        return [placement.choose(prompt(10), BOTH).replica for _ in range(30)]

    assert choices(1) == choices(1)
    assert set(choices(1)) == {"a", "b"}

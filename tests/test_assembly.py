"""Parts that the settings name."""

from __future__ import annotations

import pytest

from benchmarks.policies import ByRunName
from plato.assembly import new_policy
from plato.engine import Prompt, Segment
from plato.errors import SettingsError
from plato.scheduling.placement import KVAware, PlacementRequest, ReplicaView
from plato.settings import Settings


@pytest.mark.parametrize(("move_cost", "moves"), [(0.1, True), (None, False)])
def test_the_built_in_policy_moves_kv_if_a_cost_is_set(
    move_cost: float | None, moves: bool
) -> None:
    policy = new_policy(Settings(move_cost=move_cost))
    assert isinstance(policy, KVAware)
    sequence = PlacementRequest("r", Prompt((Segment((1,) * 2000),)), 10)
    target, holder = ReplicaView("a"), ReplicaView("b", confirmed=1000)
    source = policy.source(sequence, target, (target, holder))
    assert source == (holder if moves else None)


def test_another_policy_is_imported() -> None:
    policy = new_policy(Settings(placement="benchmarks.policies:ByRunName"))
    assert isinstance(policy, ByRunName)


@pytest.mark.parametrize(
    "placement", ["random", "", ":", "no_such_module:Policy", "benchmarks.policies:NoSuchPolicy"]
)
def test_a_policy_that_cannot_be_imported_is_refused(placement: str) -> None:
    with pytest.raises(SettingsError, match=r"write kv_aware, or package\.module:name"):
        new_policy(Settings(placement=placement))

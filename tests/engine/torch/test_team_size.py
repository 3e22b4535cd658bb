"""Threads compute together, unless other processes want the cores."""

from __future__ import annotations

from plato.engine.torch.kernels.team_size import LONGEST_REST, TeamSize

STEP_S = 0.05


def steps(team: TeamSize, share: float, seconds: float) -> list[int]:
    """Sizes of the team over time, while its caller gets this share of a core."""
    sizes = []
    for _ in range(round(seconds / STEP_S)):
        sizes.append(team.size(2))
        team.note(share * STEP_S, STEP_S)
    return sizes


def test_a_quiet_machine_and_short_disturbances_leave_it_together() -> None:
    team = TeamSize()
    assert set(steps(team, 0.98, 10)) == {2}
    team.note(0.2 * STEP_S, STEP_S)
    assert set(steps(team, 0.98, 10)) == {2}
    # One other process on two cores.
    assert set(steps(team, 0.6, 10)) == {2}


def test_on_a_crowded_machine_one_computes_alone_until_it_is_quiet_again() -> None:
    team = TeamSize()
    sizes = steps(team, 0.1, 10)
    assert sizes[:2] == [2, 2]
    assert set(sizes[2:]) == {1}
    sizes = steps(team, 1.0, 1)
    assert sizes[-1] == 2
    assert set(steps(team, 1.0, 10)) == {2}


def test_it_tries_less_often_what_fails_again() -> None:
    team = TeamSize()
    together = []
    for _ in range(2000):
        size = team.size(2)
        together.append(size == 2)
        # Alone it has a core, with the other it has not.
        team.note((1.0 if size == 1 else 0.3) * STEP_S, STEP_S)
    assert sum(together[:200]) > 2 * sum(together[-200:]) > 0
    assert sum(together[-200:]) <= 200 / LONGEST_REST * 2 + 2

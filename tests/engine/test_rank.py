"""The order in which requests are served."""

from __future__ import annotations

from plato.engine.rank import rank
from tests.engine.helpers import ask


def test_earlier_runs_come_first_and_within_a_run_the_priority_counts() -> None:
    began = 1_700_000_000.0
    requests = [
        ask((1,), run_began_unix_s=began, priority=9),
        ask((1,), run_began_unix_s=began, priority=0),
        ask((1,), run_began_unix_s=began, priority=-3),
        ask((1,), run_began_unix_s=began + 1, priority=100_000),
    ]
    ranks = [rank(request) for request in requests]
    assert ranks == sorted(set(ranks))
    assert max(ranks) < 1 << 53

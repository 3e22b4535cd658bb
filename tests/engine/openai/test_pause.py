"""How long a server that takes nothing is left alone."""

from __future__ import annotations

import pytest

from plato.engine import EngineBusyError, EngineUnreadyError
from plato.engine.openai.pause import LONGEST_S, MOST_TOLD_S, SHORTEST_S, ServerPause
from tests.clock import Clock


@pytest.fixture
def pause(clock: Clock) -> ServerPause:
    return ServerPause(clock)


def refused(pause: ServerPause, error: EngineBusyError | None = None) -> EngineBusyError:
    """What is raised when the server refuses; without an error, when it should not be asked."""

    def ask() -> None:
        with pause.respected():
            assert error is not None, "the server was asked"
            raise error

    with pytest.raises(EngineBusyError) as raised:
        ask()
    return raised.value


@pytest.mark.parametrize(("told_s", "left_s"), [(7.0, 7.0), (0.0, SHORTEST_S), (1e9, MOST_TOLD_S)])
def test_it_is_as_long_as_the_server_says_within_bounds(
    pause: ServerPause, clock: Clock, told_s: float, left_s: float
) -> None:
    assert refused(pause, EngineBusyError("full", told_s)).retry_after_s == left_s
    clock.now += left_s / 2
    again = refused(pause)
    assert (str(again), again.retry_after_s) == ("full", left_s / 2)
    clock.now += left_s / 2
    assert not pause.reason
    with pause.respected():
        pass


def test_it_grows_with_each_refusal_in_a_row_that_names_no_time(
    pause: ServerPause, clock: Clock
) -> None:
    lengths = []
    for _ in range(5):
        error = refused(pause, EngineUnreadyError("loading"))
        assert type(error) is EngineUnreadyError
        assert error.retry_after_s is not None
        lengths.append(error.retry_after_s)
        clock.now += error.retry_after_s
    assert lengths == [SHORTEST_S, 1.0, 2.0, LONGEST_S, LONGEST_S]
    with pause.respected():
        pass
    assert refused(pause, EngineUnreadyError("loading")).retry_after_s == SHORTEST_S


def test_refusals_of_what_was_sent_together_count_once(pause: ServerPause, clock: Clock) -> None:
    def ask_two() -> None:
        with pause.respected():
            refused(pause, EngineBusyError("full"))
            clock.now += 0.1
            raise EngineBusyError("full")

    with pytest.raises(EngineBusyError):
        ask_two()
    assert refused(pause).retry_after_s == pytest.approx(SHORTEST_S - 0.1)

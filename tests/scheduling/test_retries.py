"""Whether a node is decoded again, and when."""

from __future__ import annotations

import math

import pytest

from plato.engine import EngineBusyError, EngineClosedError, EngineUnreadyError, UpstreamError
from plato.scheduling.failures import classify_failure
from plato.scheduling.retries import MAX_ATTEMPTS, PATIENCE_S, Retries
from tests.clock import Clock

LIMIT = 3


class Node:
    """Fails again and again, at a pool of one decoder unless told otherwise."""

    def __init__(self, made: int = 0) -> None:
        self.clock = Clock()
        self.retries = Retries(LIMIT, made, self.clock)
        self.retry_after_s: float | None = None

    def fails(
        self, error: Exception, *, progressed: bool = False, free_in_s: float = math.inf
    ) -> float | None:
        failure = classify_failure(error, "part 1", "a")
        pause_s = self.retries.pause_s(failure, progressed=progressed, free_in_s=free_in_s)
        self.clock.now += pause_s or 0.0
        self.retry_after_s = failure.error.retry_after_s
        return pause_s


@pytest.fixture
def node() -> Node:
    return Node()


def test_attempts_in_a_row_without_a_token_are_bounded(node: Node) -> None:
    pauses = [node.fails(EngineClosedError("gone"), free_in_s=3.0) for _ in range(LIMIT)]
    assert pauses[0] == 0
    assert pauses[1]
    assert pauses[2] is None
    assert node.retries.suspect


def test_a_token_begins_the_count_anew_but_not_for_ever() -> None:
    node = Node(made=2)
    outcomes = [node.fails(EngineClosedError("gone"), progressed=True) for _ in range(20)]
    assert outcomes.index(None) == MAX_ATTEMPTS * LIMIT - 2 - 1


def test_a_server_that_is_away_is_waited_for_only_if_all_are(node: Node) -> None:
    assert node.fails(UpstreamError("away"), free_in_s=0.0) == 0
    pause_s = node.fails(UpstreamError("away"), free_in_s=3.0)
    assert pause_s is not None
    assert pause_s >= 1


@pytest.mark.parametrize("kind", [EngineBusyError, EngineUnreadyError])
def test_a_decoder_that_takes_nothing_for_now_is_waited_for_as_long_as_it_says(
    node: Node, kind: type[EngineBusyError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda _, most: most)
    began = node.clock.now
    while (pause_s := node.fails(kind("no room", 2.0))) is not None:
        assert pause_s >= 2
    assert PATIENCE_S - 5 < node.clock.now - began <= PATIENCE_S
    assert node.retry_after_s == 2
    # It tells nothing of the node.
    assert not node.retries.suspect


def test_the_first_decoder_that_is_free_again_counts(node: Node) -> None:
    assert node.fails(EngineBusyError("no room", 20.0), free_in_s=0.0) == 0
    pause_s = node.fails(EngineBusyError("no room", 20.0), free_in_s=5.0)
    assert pause_s == pytest.approx(5, abs=0.1)


def test_a_wait_that_would_be_too_long_is_not_begun_and_the_client_is_told(node: Node) -> None:
    assert node.fails(EngineBusyError("no room", 55.0), free_in_s=45.0) is None
    assert node.retry_after_s == 45


def test_a_full_queue_of_our_own_is_tried_a_few_times(node: Node) -> None:
    outcomes = [node.fails(EngineBusyError("256 are waiting")) for _ in range(LIMIT)]
    assert outcomes[0] == 0
    assert outcomes[-1] is None

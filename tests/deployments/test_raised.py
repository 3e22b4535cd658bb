"""Expected errors cross processes as values, and are raised again at the caller."""

from __future__ import annotations

import pickle
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from deployments.handles import ask, stream
from deployments.raised import Raised, sends_errors, streams_errors
from plato.engine import RequestRefusedError
from plato.errors import RunNotFoundError
from tests.deployments.calls import Response

EXPECTED = [
    RunNotFoundError("run x not found", param="run"),
    RequestRefusedError("too long", "max_tokens"),
]


class Replica:
    """Raises what it is given."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    @sends_errors
    async def snapshot(self, name: str) -> str:
        if self._error is not None:
            raise self._error
        return name

    @streams_errors
    async def run(self, count: int) -> AsyncGenerator[int]:
        for number in range(count):
            yield number + 1
        if self._error is not None:
            raise self._error


async def copied(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("error", EXPECTED, ids=lambda error: type(error).__name__)
@pytest.mark.hostile
async def test_an_expected_error_is_raised_at_the_caller(error: Exception) -> None:
    replica = Replica(error)
    sent = await replica.snapshot("a")
    assert isinstance(sent, Raised)
    with pytest.raises(type(error), match=str(error)) as raised:
        await ask(lambda: copied(sent))  # type: ignore[arg-type, return-value]
    for name in ("message", "param", "code", "status"):
        assert getattr(raised.value, name, None) == getattr(error, name, None)

    response = Response(replica.run(2))
    items = stream(lambda: response)
    assert [await anext(items), await anext(items)] == [1, 2]
    with pytest.raises(type(error), match=str(error)):
        await anext(items)
    # The other side has ended: there is nothing to cancel.
    assert not response.cancelled


async def test_results_and_other_errors_are_left_alone() -> None:
    replica = Replica(None)
    assert await replica.snapshot("a") == "a"
    assert [item async for item in replica.run(3)] == [1, 2, 3]
    broken = Replica(KeyError("a fault"))
    with pytest.raises(KeyError):
        await broken.snapshot("a")
    with pytest.raises(KeyError):
        [item async for item in broken.run(1)]


async def test_closing_a_stream_closes_what_it_streams() -> None:
    closed = []

    class Endless:
        @streams_errors
        async def run(self) -> AsyncGenerator[int]:
            try:
                while True:
                    yield 1
            finally:
                closed.append(True)

    items = Endless().run()
    assert await anext(items) == 1
    await items.aclose()
    assert closed

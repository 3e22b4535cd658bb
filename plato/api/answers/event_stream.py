"""A run as a stream of server-sent events, in the format of an endpoint."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Protocol

from plato.api.answers import sse
from plato.errors import PlatoError
from plato.runs import RunEvent


class StreamFormat(Protocol):
    """How an endpoint writes a run as server-sent events."""

    def begin(self) -> Iterator[bytes]:
        """The beginning of the stream."""
        ...

    def follow(self, event: RunEvent) -> Iterator[bytes]:
        """What an event adds to it."""
        ...

    def fail(self, error: PlatoError) -> bytes:
        """The end of a stream that did not go well."""
        ...


async def write_events(
    batches: AsyncGenerator[Iterable[RunEvent] | None],
    stream: StreamFormat,
    *,
    begun: Iterable[RunEvent] = (),
    end: Callable[[], Iterator[bytes]],
    note: Callable[[Exception], PlatoError],
) -> AsyncGenerator[bytes]:
    """`begun` and the events of `batches`, which it closes; `None` is a silence.

    `end` gives the end of a stream that went well. It may raise, as all else: `note` then gives the
    error to tell the client.
    """
    try:
        async with aclosing(batches):
            for data in stream.begin():
                yield data
            for event in begun:
                for data in stream.follow(event):
                    yield data
            async for batch in batches:
                if batch is None:
                    yield sse.PING
                for event in batch or ():
                    for data in stream.follow(event):
                        yield data
        for data in end():
            yield data
    except Exception as error:
        yield stream.fail(note(error))

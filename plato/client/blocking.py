"""The same clients for ordinary code: each owns a thread with an event loop.

So they also work where an event loop runs already, as in a notebook.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Generic, Self, TypeVar

from plato.api.info import Info
from plato.api.runs.list import RunList, RunStatus
from plato.api.runs.object import RunObject
from plato.client.answer import Answer, Asker, Question, Update
from plato.client.runs import PATIENCE_S, AsyncRuns, RunUpdate
from plato.client.server import DEFAULT_URL, AsyncClient
from plato.loop_thread import LoopThread

A = TypeVar("A", bound=Asker)


class BlockingAsker(Generic[A]):
    """An `Asker` whose methods wait. Ctrl-C cancels what they wait for."""

    def __init__(self, asker: A) -> None:
        self._asker = asker
        self._loop = LoopThread("plato-client")
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: Question, **options: Any) -> Answer:
        """Answer a question. See `Asker.stream`."""
        return self._loop.run(self._asker.ask(question, **options))

    def stream(self, question: Question, **options: Any) -> Generator[Update]:
        """Answer a question while it is written. See `Asker.stream`."""
        return self._loop.iterate(self._asker.stream(question, **options))

    def close(self) -> None:
        """Close all connections. Idempotent."""
        if not self._closed:
            self._closed = True
            self._loop.run(self._asker.close())
            self._loop.end()


class Client(BlockingAsker[AsyncClient]):
    """A client of a server.

    Use it as a context manager, or close it:

        with Client("http://127.0.0.1:8000") as client:
            answer = client.ask("How do I choose my first road bicycle?", mode="plato")
    """

    def __init__(self, url: str = DEFAULT_URL, *, api_key: str | None = None) -> None:
        """`url` is the server's root or its `/v1`."""
        client = AsyncClient(url, api_key=api_key)
        super().__init__(client)
        self.runs = Runs(client.runs, self._loop)
        """Runs, which go on without their client."""

    def answers(self) -> bool:
        """See `AsyncClient.answers`."""
        return self._loop.run(self._asker.answers())

    def models(self) -> tuple[str, ...]:
        """See `AsyncClient.models`."""
        return self._loop.run(self._asker.models())

    def info(self) -> Info:
        """See `AsyncClient.info`."""
        return self._loop.run(self._asker.info())


class Runs:
    """`AsyncRuns` for ordinary code."""

    def __init__(self, runs: AsyncRuns, loop: LoopThread) -> None:
        self._runs = runs
        self._loop = loop

    def start(self, question: Question, **options: Any) -> RunObject:
        """See `AsyncRuns.start`."""
        return self._loop.run(self._runs.start(question, **options))

    def list(
        self, *, limit: int = 20, before: str | None = None, status: RunStatus | None = None
    ) -> RunList:
        """See `AsyncRuns.list`."""
        return self._loop.run(self._runs.list(limit=limit, before=before, status=status))

    def get(self, run_id: str) -> RunObject:
        """See `AsyncRuns.get`."""
        return self._loop.run(self._runs.get(run_id))

    def cancel(self, run_id: str) -> RunObject:
        """See `AsyncRuns.cancel`."""
        return self._loop.run(self._runs.cancel(run_id))

    def follow(self, run_id: str, *, patience_s: float = PATIENCE_S) -> Generator[RunUpdate]:
        """See `AsyncRuns.follow`."""
        return self._loop.iterate(self._runs.follow(run_id, patience_s=patience_s))

"""A server: its answers, and what it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from plato.api.answers.run_info import PlatoInfo, Usage
from plato.api.info import Info
from plato.api.models import ModelList
from plato.api.runs.events import read_event
from plato.client.answer import Answer, Asker, Question, Update, stream_body
from plato.client.connection import CONNECT_S, Connection
from plato.client.errors import read_json
from plato.client.runs import AsyncRuns
from plato.errors import PlatoError, UnavailableError

DEFAULT_URL = "http://127.0.0.1:8000"
END = "[DONE]"
"""Data of the last event of a stream of chunks."""


class AsyncClient(Asker):
    """A client of a server; belongs to one event loop.

    Use it as a context manager, or close it:

        async with AsyncClient("http://127.0.0.1:8000") as client:
            answer = await client.ask("How do I choose my first road bicycle?", mode="plato")
    """

    def __init__(self, url: str = DEFAULT_URL, *, api_key: str | None = None) -> None:
        """`url` is the server's root or its `/v1`."""
        self._connection = Connection(url, api_key)
        self.runs = AsyncRuns(self._connection)
        """Runs, which go on without their client."""

    async def close(self) -> None:
        """Close all connections."""
        await self._connection.close()

    async def stream(self, question: Question, **options: Any) -> AsyncGenerator[Update]:
        """See `Asker.stream`. An answer whose stream breaks off is cancelled by the server."""
        body = stream_body(question, options)
        reader = _AnswerReader()
        events = self._connection.events("POST", "/v1/chat/completions", body=body)
        with self._connection.understood():
            async with aclosing(events):
                async for data in events:
                    if data == END:
                        yield Update(answer=reader.answer())
                        return
                    update = reader.read(read_json(data))
                    if update != Update():
                        yield update
        raise UnavailableError(f"the answer from {self._connection.base} is incomplete; try again")

    async def answers(self) -> bool:
        """Whether a server responds."""
        try:
            await self._connection.call("GET", "/healthz", deadline_s=CONNECT_S)
        except PlatoError:
            return False
        return True

    async def models(self) -> tuple[str, ...]:
        """The names of the model; those with a mode choose it."""
        with self._connection.understood():
            listed = await self._connection.call("GET", "/v1/models")
            return tuple(model.id for model in ModelList.model_validate(listed).data)

    async def info(self) -> Info:
        """What the server is, its decoders, limits and defaults."""
        with self._connection.understood():
            return Info.model_validate(await self._connection.call("GET", "/v1/info"))


class _AnswerReader:
    """Puts an answer together from the chunks of a completion."""

    def __init__(self) -> None:
        self._text = ""
        self._last: dict[str, Any] = {}

    def read(self, chunk: dict[str, Any]) -> Update:
        """The update in a chunk."""
        if chunk.get("usage"):
            self._last["usage"] = Usage.model_validate(chunk["usage"])
        if not chunk["choices"]:
            return Update()
        choice = chunk["choices"][0]
        text: str = choice["delta"].get("content") or ""
        self._text += text
        plato = chunk.get("plato") or {}
        if "event" in plato:
            return Update(text, read_event(plato["event"]))
        if plato:
            self._last["info"] = PlatoInfo.model_validate(plato)
            self._last["finish_reason"] = choice["finish_reason"]
        return Update(text)

    def answer(self) -> Answer:
        """The complete answer. Raises `LookupError` if some of it has not come."""
        last = self._last
        return Answer(self._text, last["finish_reason"], last["info"], last["usage"])

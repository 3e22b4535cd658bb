"""Plato as a library: the whole engine in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Self

from plato.client import Asker, BlockingAsker, LocalClient, Question, Update
from plato.extras import not_installed
from plato.settings import read_settings


class AsyncPlato(Asker):
    """Answers questions with a model in this process; belongs to one event loop.

        async with AsyncPlato() as plato:
            answer = await plato.ask("How do I choose my first road bicycle?", mode="plato")

    The model is loaded when the block begins, or else for the first question.
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        """Configure it; raises `SettingsError`.

        Args:
            model: Name on the hub, or a folder; default: the setting `model`.
            settings: Other settings, the fields of `plato.settings.Settings`.
        """
        named = {} if model is None else {"model": model}
        self.settings = read_settings({**named, **settings})
        self._client: LocalClient | None = None
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def open(self) -> LocalClient:
        """Load the model, once; takes seconds. Raises a `PlatoError`."""
        async with self._opening:
            if self._client is None:
                try:
                    from plato.runtime import Runtime
                except ModuleNotFoundError as error:
                    raise not_installed(error) from error
                self._client = LocalClient(await Runtime.open(self.settings))
            return self._client

    async def stream(self, question: Question, **options: Any) -> AsyncGenerator[Update]:
        """See `Asker.stream`."""
        client = await self.open()
        async with aclosing(client.stream(question, **options)) as updates:
            async for update in updates:
                yield update

    async def close(self) -> None:
        """Cancel all answers, and give up the model. Idempotent."""
        if self._client is not None:
            await self._client.close()


class Plato(BlockingAsker[AsyncPlato]):
    """`AsyncPlato` for ordinary code, and for notebooks.

    Use it as a context manager, or close it:

        with Plato() as plato:
            answer = plato.ask("How do I choose my first road bicycle?", mode="plato")
    """

    def __init__(self, model: str | None = None, **settings: Any) -> None:
        """See `AsyncPlato`."""
        super().__init__(AsyncPlato(model, **settings))

    def __enter__(self) -> Self:
        self._loop.run(self._asker.open())
        return self

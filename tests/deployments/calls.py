"""Handle calls without Ray."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any


class Response:
    """What a streaming handle call returns, without Ray: items, and whether it was cancelled."""

    def __init__(self, items: AsyncGenerator[Any]) -> None:
        self._items = items
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._items)

    def cancel(self) -> None:
        self.cancelled = True

"""The scheduler's view of what decodes: engines behind a pool, seen only through this."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from plato.engine import Chunk, GenerateRequest


@dataclass(frozen=True, slots=True)
class Replica:
    """A decoder replica that can be chosen."""

    name: str


class DecoderPool(Protocol):
    """Engines in this process or behind Ray Serve handles."""

    def replicas(self) -> tuple[Replica, ...]:
        """The replicas known now; empty while none is."""
        ...

    def generate(
        self, request: GenerateRequest, replica: str | None = None
    ) -> AsyncGenerator[Chunk]:
        """Decode on `replica` if it is there and has room, else on another.

        Closing the iterator cancels the sequence. Raises `RequestRefusedError` for a request that
        can never be served, and anything else when the replica failed.
        """
        ...

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """Renew `owner`'s lease at one replica."""
        ...

    async def release(self, run: str, replica: str) -> None:
        """Drop the pins that sequences of `run` have left at one replica."""
        ...

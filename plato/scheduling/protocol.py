"""The scheduler's view of what decodes: engines behind a pool, seen only through this."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from plato.engine import Chunk, GenerateRequest, HoldingsChange


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
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """Decode on the first of `ranked` that is there and has room, else on any.

        Closing the iterator cancels the sequence. Raises `RequestRefusedError` for a request that
        can never be served, and anything else when the replica failed.
        """
        ...

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """Renew `owner`'s lease at one replica."""
        ...

    async def holdings(self, replica: str) -> tuple[str, HoldingsChange]:
        """Epoch and holdings of one replica. Raises if it does not answer."""
        ...

    async def release(self, run: str, replica: str) -> None:
        """Drop the pins that sequences of `run` have left at one replica."""
        ...

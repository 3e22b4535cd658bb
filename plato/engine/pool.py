"""Several engines behind one protocol: all that planners and schedulers see of decoders."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from plato.engine.capabilities import losses
from plato.engine.errors import EngineClosedError
from plato.engine.protocol import Chunk, EngineStats, GenerateRequest, KVEventBatch


@dataclass(frozen=True, slots=True)
class Replica:
    """A decoder replica that can be chosen."""

    name: str


class ReplicaHealth(StrEnum):
    """Whether a replica decodes."""

    READY = "ready"
    AWAY = "away"
    """It, or the server behind it, does not answer now."""
    FAILED = "failed"
    """Its engine has stopped for good."""


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A replica, and whether it decodes."""

    name: str
    health: ReplicaHealth
    dtype: str = ""
    """Of its engine, if that answers."""
    reason: str = ""
    """Why it does not decode."""
    losses: tuple[str, ...] = ()
    """What its engine cannot do; see `plato.engine.losses`."""


def replica_status(name: str, stats: EngineStats | Exception) -> ReplicaStatus:
    """From what a replica says of itself, or how the call failed."""
    if isinstance(stats, EngineStats):
        health, reason = ReplicaHealth.READY, ""
        if not stats.available:
            health, reason = ReplicaHealth.AWAY, stats.problem or "its server does not answer"
        return ReplicaStatus(name, health, stats.dtype, reason, losses(stats.capabilities))
    failed = isinstance(stats, EngineClosedError)
    health = ReplicaHealth.FAILED if failed else ReplicaHealth.AWAY
    return ReplicaStatus(name, health, reason=str(stats) or type(stats).__name__)


class DecoderPool(Protocol):
    """Engines in this process or behind Ray Serve handles."""

    remote: bool
    """Whether the engines are in other processes: then sequences need leases, and silence counts.
    In one process nobody can be lost alone."""

    def replicas(self) -> tuple[Replica, ...]:
        """The replicas known now; may be empty."""
        ...

    def generate(
        self, request: GenerateRequest, ranked: tuple[str, ...] = ()
    ) -> AsyncGenerator[Chunk]:
        """Decode on the first of `ranked` that is available and has capacity, else on any replica.

        Closing the iterator cancels the sequence. Raises `RequestRefusedError` for a request that
        can never be served, and anything else when the replica failed.
        """
        ...

    async def renew(self, owner: str, ttl_s: float, replica: str) -> None:
        """Renew `owner`'s lease on one replica."""
        ...

    async def kv_snapshot(self, replica: str) -> tuple[str, KVEventBatch]:
        """Epoch and stored prefixes of one replica. Raises if it does not answer."""
        ...

    async def release(self, run_id: str, replica: str) -> None:
        """Drop the pins that sequences of `run` have left on one replica."""
        ...

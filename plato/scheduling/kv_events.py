"""KV events: published by every decoder, followed by every scheduler in the background."""

from __future__ import annotations

import asyncio
import logging

from plato.context.protocol import KV_EVENTS_START, ContextStore
from plato.context.records import KVEventRecord, UnreadableRecordError, pack, unpack
from plato.engine import DecoderPool, Engine, EngineClosedError
from plato.scheduling.placement import ReplicaTable
from plato.tasks import end_task

logger = logging.getLogger(__name__)

INTERVAL_S = 0.1
"""How often events are published and read: longer than a step, shorter than a node."""
SNAPSHOT_DEADLINE_S = 2.0
SNAPSHOT_INTERVAL_S = 1.0
"""Minimum time between two snapshots of one replica."""


async def publish_kv_events(engine: Engine, replica: str, store: ContextStore) -> None:
    """Append an engine's KV events to the store, until cancelled or the engine is closed.

    A lost batch leaves a gap in the numbers, and followers fetch a snapshot.
    """
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            batch = await engine.take_kv_events()
            if batch is not None:
                await store.append_kv_events(pack(KVEventRecord(replica, engine.epoch, batch)))
            elif not store.available:
                # An idle decoder writes nothing, and would not notice that the store recovered.
                await store.ping()
        except EngineClosedError:
            return
        except Exception:
            logger.exception("publishing the KV events of %s failed, retrying", replica)


class KVEventFollower:
    """Applies the KV events of all decoders to a scheduler's placement.

    Batches are numbered: after a gap, a restart of the store or a new epoch of a replica, a
    snapshot of the replica is fetched. Runs never wait for it.
    """

    def __init__(self, store: ContextStore, pool: DecoderPool, replicas: ReplicaTable) -> None:
        self._store = store
        self._pool = pool
        self._replicas = replicas
        self._after = ""
        """Id of the last entry that was read."""
        self._synced: dict[str, str] = {}
        """Epoch of every replica whose stored prefixes are known; bounded by the replicas."""
        self._fetching: dict[str, asyncio.Task[None]] = {}
        """One task per replica whose snapshot is being fetched."""
        self.snapshots = 0
        """Snapshots fetched."""

    async def follow(self) -> None:
        """Follow the events until cancelled."""
        try:
            while True:
                try:
                    await self._read()
                    self._fetch_missing()
                except Exception:
                    logger.exception("following the KV events failed, retrying")
                await asyncio.sleep(INTERVAL_S)
        finally:
            for task in tuple(self._fetching.values()):
                await end_task(task)

    async def _read(self) -> None:
        entries = await self._store.read_kv_events(self._after)
        first = not self._after
        if first and entries is not None and not entries:
            self._after = KV_EVENTS_START
        for name, packed in entries or ():
            self._after = name
            if first:
                return  # Earlier events are covered by the snapshots.
            try:
                record = unpack(KVEventRecord, packed)
            except UnreadableRecordError as error:
                logger.warning("unreadable KV events: %s", error)
                continue
            if not self._replicas.apply(record.replica, record.epoch, record.batch):
                self._synced.pop(record.replica, None)

    def _fetch_missing(self) -> None:
        present = {replica.name for replica in self._pool.replicas()}
        for gone in self._synced.keys() - present:
            del self._synced[gone]
        epochs = self._replicas.epochs()
        for name in present:
            synced = self._synced.get(name)
            stale = synced is None or epochs.get(name, synced) not in (synced, "")
            if stale and name not in self._fetching and name in epochs:
                self._fetching[name] = asyncio.create_task(
                    self._fetch(name), name=f"kv-snapshot-{name}"
                )

    async def _fetch(self, replica: str) -> None:
        try:
            async with asyncio.timeout(SNAPSHOT_DEADLINE_S):
                epoch, snapshot = await self._pool.kv_snapshot(replica)
            self.snapshots += 1
            if self._replicas.apply(replica, epoch, snapshot):
                self._synced[replica] = epoch
        except Exception as error:
            logger.info("fetching the KV snapshot of %s failed: %r", replica, error)
        finally:
            # Wait after a failure, too.
            await asyncio.sleep(SNAPSHOT_INTERVAL_S)
            del self._fetching[replica]

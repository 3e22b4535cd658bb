"""What decoders hold: published by each of them, followed by every scheduler in the background."""

from __future__ import annotations

import asyncio
import logging

from plato.context.protocol import FEED_START, ContextStore
from plato.context.records import KVChange, UnreadableRecordError, pack, unpack
from plato.engine import Engine, EngineClosedError
from plato.scheduling.placement import ReplicaTable
from plato.scheduling.protocol import DecoderPool
from plato.tasks import end_task

logger = logging.getLogger(__name__)

INTERVAL_S = 0.1
"""How often changes are published and read: longer than a step, shorter than a node."""
SNAPSHOT_DEADLINE_S = 2.0
SNAPSHOT_INTERVAL_S = 1.0
"""Between two snapshots of one replica, at the least."""


async def publish_holdings(engine: Engine, replica: str, store: ContextStore) -> None:
    """Append what an engine holds and evicts to the feed, until cancelled or the engine ends.

    What the store misses shows as a gap in the numbers, and followers ask for a snapshot.
    """
    while True:
        await asyncio.sleep(INTERVAL_S)
        try:
            change = await engine.take_holdings_change()
            if change is not None:
                await store.append_feed(pack(KVChange(replica, engine.epoch, change)))
            elif not store.available:
                # With nothing to say, an idle decoder would believe in an outage for good.
                await store.ping()
        except EngineClosedError:
            return
        except Exception:
            logger.exception("what %s holds could not be published; it goes on", replica)


class KVFeed:
    """Keeps a scheduler's replica table informed of what decoders hold.

    Changes have numbers: after a gap, a restart of the store or a new life of a replica the
    replica itself is asked for all that it holds. Nothing on the way of a run waits for this.
    """

    def __init__(self, store: ContextStore, pool: DecoderPool, replicas: ReplicaTable) -> None:
        self._store = store
        self._pool = pool
        self._replicas = replicas
        self._after = ""
        """Name of the last entry that was read."""
        self._informed: dict[str, str] = {}
        """Epoch of every replica whose holdings are known; bounded by the replicas."""
        self._asking: dict[str, asyncio.Task[None]] = {}
        """One task for each replica that is asked for a snapshot."""
        self.snapshots = 0
        """Snapshots that were taken."""

    async def follow(self) -> None:
        """Follow the feed until cancelled."""
        try:
            while True:
                try:
                    await self._read()
                    self._ask_for_missing()
                except Exception:
                    logger.exception("following the feed of KV handles failed; it goes on")
                await asyncio.sleep(INTERVAL_S)
        finally:
            for task in tuple(self._asking.values()):
                await end_task(task)

    async def _read(self) -> None:
        entries = await self._store.read_feed(self._after)
        first = not self._after
        if first and entries is not None and not entries:
            self._after = FEED_START
        for name, packed in entries or ():
            self._after = name
            if first:
                return  # What was before is in the snapshots.
            try:
                told = unpack(KVChange, packed)
            except UnreadableRecordError as error:
                logger.warning("an unreadable entry in the feed of KV handles: %s", error)
                continue
            if not self._replicas.apply(told.replica, told.epoch, told.change):
                self._informed.pop(told.replica, None)

    def _ask_for_missing(self) -> None:
        present = {replica.name for replica in self._pool.replicas()}
        for gone in self._informed.keys() - present:
            del self._informed[gone]
        epochs = self._replicas.epochs()
        for name in present:
            known = self._informed.get(name)
            stale = known is None or epochs.get(name, known) not in (known, "")
            if stale and name not in self._asking and name in epochs:
                self._asking[name] = asyncio.create_task(self._ask(name), name=f"holdings-{name}")

    async def _ask(self, replica: str) -> None:
        try:
            async with asyncio.timeout(SNAPSHOT_DEADLINE_S):
                epoch, change = await self._pool.holdings(replica)
            self.snapshots += 1
            if self._replicas.apply(replica, epoch, change):
                self._informed[replica] = epoch
        except Exception as error:
            logger.info("no snapshot of what %s holds: %r", replica, error)
        finally:
            # Not at once again, whatever the answer was.
            await asyncio.sleep(SNAPSHOT_INTERVAL_S)
            del self._asking[replica]

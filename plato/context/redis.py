"""The context store in Redis or Valkey, shared between processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from redis import asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from plato.breaker import CircuitBreaker
from plato.context import scripts
from plato.context.cluster import CLUSTER_ERRORS, CLUSTER_MESSAGE
from plato.context.keys import Keys, read_running_member, running_member
from plato.context.protocol import QUOTA_BYTES, NodeRecord, RunRecord
from plato.context.records import Record, UnreadableRecordError, pack, unpack
from plato.errors import SettingsError, StorageQuotaError
from plato.runs import EventId

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_CONNECTIONS = 8
MAX_LOG_ENTRIES = 16_384
"""Log entries of one run: more than a run can have within its deadline, as tokens are grouped."""
MAX_KV_EVENTS = 8192
"""Batches of KV events: a few minutes of a busy pool. A follower that lags further behind fetches
snapshots."""
READ_ENTRIES = 256
ORPHANS = 16
"""Runs that a scheduler checks in one round."""


class RedisContextStore:
    """Node outputs, runs and event logs under `NAMESPACE:TENANT:`, each key with a TTL.

    Every method except `release` is one round trip, and every round trip ends within `timeout_s`,
    including connecting. If the store does not answer, the methods return False, None or an empty
    result, a circuit breaker rejects further calls for a while, and `available` is False; nothing
    is retried. `None` from `acquire` then means that the owner is unknown.

    Belongs to the event loop of its first call.
    """

    def __init__(
        self,
        url: str,
        keys: Keys | None = None,
        *,
        timeout_s: float = 0.5,
        ttl_s: int = 3600,
        quota_bytes: int = QUOTA_BYTES,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        """Connects on the first call.

        Args:
            url: `redis://[[user]:password@]host[:port][/db]`, `rediss://` or `unix://`.
            keys: The names of the keys, which separate applications and models.
            timeout_s: The deadline of every call.
            ttl_s: Lifetime of a key after its last write.
            quota_bytes: Size of a tenant's runs, from which on its ended ones are evicted.
            breaker: A circuit breaker with other thresholds than the default.

        Raises:
            SettingsError: `url` is not a Redis URL.
        """
        self._keys = keys or Keys()
        self._timeout_s = timeout_s
        self._ttl_ms = ttl_s * 1000
        self._quota_bytes = quota_bytes
        self._breaker = breaker or CircuitBreaker()
        self._dropped = 0
        self._warned_unreadable = False
        self._client = self._connected(url)

    def _connected(self, url: str) -> aioredis.Redis:
        try:
            pool = aioredis.BlockingConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                timeout=self._timeout_s,
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                # The breaker decides when to retry. RESP2 saves the round trips of a handshake.
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        except ValueError as error:
            raise SettingsError(
                "PLATO_REDIS_URL is not a valid URL of a Redis or Valkey; "
                "write it like redis://:password@host:6379/0",
                param="redis_url",
            ) from error
        return aioredis.Redis.from_pool(pool)

    async def reconnect(self, url: str) -> None:
        """Use the server at `url` from now on. Raises `SettingsError`."""
        gone, self._client = self._client, self._connected(url)
        await self._disconnect(gone)

    @property
    def available(self) -> bool:
        """Whether the store answered last time, or has not been asked yet."""
        return self._breaker.available

    @property
    def dropped(self) -> int:
        """Writes that were lost because the store was unavailable."""
        return self._dropped

    async def ping(self) -> bool:
        """Whether the store answers now."""
        return await self._call(self._client.ping) is not None

    async def put_run(self, record: RunRecord) -> bool:
        """Write a run's state; False if it could not be written or the fence is stale.

        Raises `StorageQuotaError` if the run is new and those in progress fill the quota.
        """
        tenant, ended = record.tenant, int(record.state != "running")
        keys = self._keys.run(tenant, record.run_id), *self._accounts(tenant)
        limits = self._ttl_ms, ended, self._quota_bytes
        arguments = pack(record), record.fence, *limits, str(record.created_unix_s)
        answer = await self._eval(scripts.PUT_RUN, keys, *arguments)
        if answer is None:
            self._dropped += 1
        elif answer == scripts.QUOTA_EXCEEDED:
            raise StorageQuotaError.of(self._quota_bytes)
        return answer == 1

    async def get_run(self, tenant: str, run_id: str) -> RunRecord | None:
        """Read a run's state."""
        data = await self._call(
            lambda: cast(
                Awaitable[Any], self._client.hget(self._keys.run(tenant, run_id), "record")
            )
        )
        return self._unpack(RunRecord, data) if data is not None else None

    async def list_runs(
        self, tenant: str, before: str | None = None, limit: int = 20
    ) -> tuple[RunRecord, ...]:
        """The newest runs of a tenant, or those older than `before`, newest first."""
        after = "" if before is None else self._keys.prefix(tenant, before)
        packed: Any = await self._eval(scripts.LIST_RUNS, self._keys.created(tenant), after, limit)
        records = (self._unpack(RunRecord, data) for data in packed or ())
        return tuple(record for record in records if record is not None)

    async def put_node(self, record: NodeRecord, fence: int) -> bool:
        """Write a finished node's output; False if not possible or the fence is stale."""
        tenant, run_id = record.tenant, record.run_id
        keys = self._keys.run(tenant, run_id), self._keys.nodes(tenant, run_id)
        arguments = fence, record.number, pack(record), self._ttl_ms, self._quota_bytes
        return await self._write(scripts.PUT_NODE, (*keys, *self._accounts(tenant)), *arguments)

    async def get_nodes(self, tenant: str, run_id: str) -> dict[int, NodeRecord]:
        """All finished nodes of a run, by number."""
        packed = await self._call(
            lambda: cast(
                Awaitable[dict[bytes, Any]], self._client.hgetall(self._keys.nodes(tenant, run_id))
            )
        )
        records = (self._unpack(NodeRecord, data) for data in (packed or {}).values())
        return {record.number: record for record in records if record is not None}

    async def append_kv_events(self, entry: bytes) -> bool:
        """Append a packed batch of KV events; False if it could not be written."""
        return await self._write(
            scripts.APPEND_KV_EVENTS, self._keys.kv_events, entry, MAX_KV_EVENTS, self._ttl_ms
        )

    async def read_kv_events(self, after: str) -> tuple[tuple[str, bytes], ...] | None:
        """Packed batches after the entry with id `after`; the last one if it is empty."""

        def ask() -> Awaitable[list[tuple[bytes, dict[bytes, bytes]]]]:
            answer = (
                self._client.xrange(self._keys.kv_events, min=f"({after}", count=READ_ENTRIES)
                if after
                else self._client.xrevrange(self._keys.kv_events, count=1)
            )
            return cast(Awaitable[list[tuple[bytes, dict[bytes, bytes]]]], answer)

        entries = await self._call(ask)
        if entries is None:
            return None
        return tuple((name.decode(), fields[b"entry"]) for name, fields in entries)

    async def append_events(
        self,
        tenant: str,
        run_id: str,
        last: EventId,
        fence: int,
        events: bytes,
        *,
        after: EventId | None = None,
    ) -> bool:
        """Append packed events; False if the fence is stale or the log does not end at `after`."""
        keys = self._keys.run(tenant, run_id), self._keys.events(tenant, run_id)
        ends = str(after or "")
        arguments = fence, str(last), events, self._ttl_ms, MAX_LOG_ENTRIES, ends
        return await self._write(
            scripts.APPEND_EVENTS,
            (*keys, *self._accounts(tenant)),
            *arguments,
            self._quota_bytes,
        )

    async def read_events(
        self, tenant: str, run_id: str, after: EventId
    ) -> tuple[tuple[EventId, bytes], ...]:
        """Packed events with ids above `after`, each with the id of its last; bounded per call."""
        key = self._keys.events(tenant, run_id)
        entries = await self._call(
            lambda: cast(
                Awaitable[list[tuple[bytes, dict[bytes, bytes]]]],
                self._client.xrange(key, min=f"({after}", count=READ_ENTRIES),
            )
        )
        return tuple(
            (EventId.parse(name.decode()), fields[b"events"]) for name, fields in entries or ()
        )

    async def acquire(
        self, tenant: str, run_id: str, owner: str, ttl_s: float, *, force: bool = False
    ) -> int | None:
        """Become the run's owner: the new fencing token, or None if the run has another owner."""
        arguments = owner, _ms(ttl_s), self._ttl_ms, int(force)
        return await self._eval_noted(scripts.ACQUIRE, tenant, run_id, ttl_s, *arguments) or None

    async def extend(self, tenant: str, run_id: str, owner: str, fence: int, ttl_s: float) -> bool:
        """Extend the lease; False if the ownership is lost."""
        arguments = owner, fence, _ms(ttl_s), self._ttl_ms
        return await self._eval_noted(scripts.EXTEND, tenant, run_id, ttl_s, *arguments) == 1

    async def release(self, tenant: str, run_id: str, owner: str, fence: int) -> None:
        """Give up the ownership."""
        if await self._eval(scripts.RELEASE, self._keys.run(tenant, run_id), owner, fence) == 1:
            await self.forget(tenant, run_id)

    async def orphans(self) -> tuple[tuple[str, str], ...]:
        """(tenant, run) of runs whose leases have expired; a bounded number per call."""
        members: Any = await self._eval(scripts.FIND_ORPHANS, self._keys.running, ORPHANS)
        return tuple(read_running_member(member.decode()) for member in members or ())

    async def forget(self, tenant: str, run_id: str) -> None:
        """The run has ended and is not an orphan. Its data is kept."""
        member = running_member(tenant, run_id)
        await self._call(
            lambda: cast(Awaitable[Any], self._client.zrem(self._keys.running, member))
        )

    def _accounts(self, tenant: str) -> tuple[str, str]:
        """Keys that account for a tenant's runs."""
        return self._keys.usage(tenant), self._keys.written(tenant)

    async def close(self) -> None:
        """Disconnect. Close a `WriteBehind` first, so that its queue is written."""
        await self._disconnect(self._client)

    async def _disconnect(self, client: aioredis.Redis) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.aclose()
        except (RedisError, OSError) as error:
            logger.debug("disconnecting from the context store failed: %s", error)

    async def _write(
        self, script: str, keys: str | tuple[str, ...], *arguments: bytes | str | int
    ) -> bool:
        answer = await self._eval(script, keys, *arguments)
        if answer is None:
            self._dropped += 1
        return answer == 1

    async def _eval(
        self, script: str, keys: str | tuple[str, ...], *arguments: bytes | str | int
    ) -> int | None:
        named = (keys,) if isinstance(keys, str) else keys
        return await self._call(
            lambda: cast(
                Awaitable[int],
                self._client.eval(script, len(named), *named, *cast(tuple[str], arguments)),
            )
        )

    async def _eval_noted(
        self, script: str, tenant: str, run_id: str, lease_s: float, *arguments: str | int
    ) -> int | None:
        """Run a script that grants a lease on a run, and record the lease for `orphans`.

        The lease is recorded first, so that a run with an owner is always found when the owner is
        gone.
        """
        pipeline = self._client.pipeline(transaction=False)
        pipeline.eval(
            scripts.NOTE_RUNNING,
            1,
            self._keys.running,
            running_member(tenant, run_id),
            str(_ms(lease_s)),
            str(self._ttl_ms),
        )
        pipeline.eval(script, 1, self._keys.run(tenant, run_id), *map(str, arguments))
        answers = await self._call(pipeline.execute)
        return None if answers is None else int(answers[1])

    async def _call(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """The answer of the store; None if it is unavailable."""
        if not self._breaker.admit():
            return None
        was_available = self._breaker.available
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await ask()
        except (TimeoutError, RedisTimeoutError) as error:
            self._breaker.failed(timed_out=True)
            self._report_away(was_available, error)
            return None
        except (RedisError, OSError) as error:
            if isinstance(error, ResponseError) and "WRONGTYPE" in str(error):
                # The store works, but the key is not ours.
                self._breaker.succeeded()
                self._report_unreadable(error)
                return None
            self._breaker.failed()
            self._report_away(was_available, error)
            return None
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.succeeded()
        if not was_available:
            logger.info("context store available again")
        return answer

    def _unpack(self, kind: type[Record], data: bytes) -> Record | None:
        try:
            return unpack(kind, data)
        except UnreadableRecordError as error:
            self._report_unreadable(error)
            return None

    def _report_away(self, was_available: bool, error: Exception) -> None:
        if was_available:
            reason = str(error) or f"no answer within {self._timeout_s} s"
            if isinstance(error, CLUSTER_ERRORS):
                reason = CLUSTER_MESSAGE
            logger.warning("context store unavailable, continuing without it: %s", reason)

    def _report_unreadable(self, error: Exception) -> None:
        if not self._warned_unreadable:
            self._warned_unreadable = True
            logger.warning(
                "ignoring unreadable records in the context store (logged once): %s", error
            )


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))

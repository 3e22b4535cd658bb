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

from plato.context import scripts
from plato.context.breaker import CircuitBreaker
from plato.context.keys import handles_key, nodes_key, run_key
from plato.context.protocol import KVHandle, NodeRecord, RunRecord
from plato.context.records import Record, UnreadableRecordError, pack, unpack
from plato.errors import SettingsError

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_REPLICAS_PER_CHAIN = 64
MAX_CONNECTIONS = 8


class RedisContextStore:
    """Node outputs, run state and KV handles under `plato:TENANT:`, each key with a TTL.

    Every method is one round trip and ends within `timeout_s`, connecting included. When the
    store does not answer, the methods return what they return for nothing (False, None, empty),
    a circuit breaker keeps later calls from trying for a while, and `available` turns False;
    nothing is retried. `None` of `acquire` then means "nobody knows".

    Belongs to the event loop of its first call.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 0.5,
        ttl_s: int = 3600,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        """Connects with the first call.

        Args:
            url: `redis://[[user]:password@]host[:port][/db]`, `rediss://` or `unix://`.
            timeout_s: The deadline of every call.
            ttl_s: How long a key lives after it was last written.
            breaker: One with other thresholds than the default's.

        Raises:
            SettingsError: `url` is none that Redis knows.
        """
        self._timeout_s = timeout_s
        self._ttl_ms = ttl_s * 1000
        self._breaker = breaker or CircuitBreaker()
        self._dropped = 0
        self._warned_unreadable = False
        try:
            pool = aioredis.BlockingConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
                # The breaker decides when to try again. RESP2 saves a handshake's round trips.
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        except ValueError as error:
            raise SettingsError(
                "PLATO_REDIS_URL is no URL of a Redis or Valkey; "
                "write it like redis://:password@host:6379/0",
                param="redis_url",
            ) from error
        self._client = aioredis.Redis.from_pool(pool)

    @property
    def available(self) -> bool:
        """Whether the store answered last time, or has not been asked yet."""
        return self._breaker.available

    @property
    def dropped(self) -> int:
        """Writes that were lost because the store was away."""
        return self._dropped

    async def put_run(self, record: RunRecord) -> bool:
        """Write a run's state; False if it could not be written or the fence is stale."""
        key = run_key(record.tenant, record.run)
        return await self._write(scripts.PUT_RUN, key, pack(record), record.fence, self._ttl_ms)

    async def get_run(self, tenant: str, run: str) -> RunRecord | None:
        """Read a run's state."""
        data = await self._call(
            lambda: cast(Awaitable[Any], self._client.hget(run_key(tenant, run), "record"))
        )
        return self._unpack(RunRecord, data) if data is not None else None

    async def put_node(self, record: NodeRecord) -> bool:
        """Write a finished node's output."""
        key = nodes_key(record.tenant, record.run)
        return await self._write(scripts.PUT_NODE, key, record.number, pack(record), self._ttl_ms)

    async def get_nodes(self, tenant: str, run: str) -> dict[int, NodeRecord]:
        """All finished nodes of a run, by number."""
        packed = await self._call(
            lambda: cast(Awaitable[dict[bytes, Any]], self._client.hgetall(nodes_key(tenant, run)))
        )
        records = (self._unpack(NodeRecord, data) for data in (packed or {}).values())
        return {record.number: record for record in records if record is not None}

    async def put_handles(self, tenant: str, handles: tuple[KVHandle, ...]) -> bool:
        """Announce prefixes that a replica holds. `tenant` is empty for public prefixes."""
        if not handles:
            return True
        # Not one transaction: the keys of different chains lie in different slots of a cluster.
        pipeline = self._client.pipeline(transaction=False)
        for handle in handles:
            pipeline.eval(
                scripts.PUT_HANDLE,
                1,
                handles_key(tenant, handle.chain),
                cast(str, pack(handle)),
                str(self._ttl_ms),
                str(MAX_REPLICAS_PER_CHAIN),
            )
        done = await self._call(pipeline.execute)
        if done is None:
            self._dropped += len(handles)
        return done is not None

    async def get_handles(self, tenant: str, chains: tuple[bytes, ...]) -> tuple[KVHandle, ...]:
        """Who holds these chains, the latest announcement of each chain first."""
        if not chains:
            return ()
        pipeline = self._client.pipeline(transaction=False)
        for chain in chains:
            pipeline.zrevrange(handles_key(tenant, chain), 0, -1)
        answers = await self._call(pipeline.execute) or []
        found: dict[tuple[bytes, str], KVHandle] = {}
        for data in (data for answer in answers for data in answer):
            handle = self._unpack(KVHandle, data)
            if handle is not None:
                # An earlier life of the same replica comes later, and is void.
                found.setdefault((handle.chain, handle.replica), handle)
        return tuple(found.values())

    async def acquire(self, tenant: str, run: str, owner: str, ttl_s: float) -> int | None:
        """Become the run's owner: the new fencing token, or None if somebody else is."""
        key = run_key(tenant, run)
        fence = await self._eval(scripts.ACQUIRE, key, owner, _ms(ttl_s), self._ttl_ms)
        return fence or None

    async def extend(self, tenant: str, run: str, owner: str, fence: int, ttl_s: float) -> bool:
        """Keep the ownership; False if it is lost."""
        key = run_key(tenant, run)
        return await self._eval(scripts.EXTEND, key, owner, fence, _ms(ttl_s), self._ttl_ms) == 1

    async def release(self, tenant: str, run: str, owner: str, fence: int) -> None:
        """Give the ownership up."""
        await self._eval(scripts.RELEASE, run_key(tenant, run), owner, fence)

    async def close(self) -> None:
        """Disconnect. What waits in a `WriteBehind` is written by closing that first."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._client.aclose()
        except (RedisError, OSError) as error:
            logger.debug("disconnecting from the context store: %s", error)

    async def _write(self, script: str, key: str, *arguments: bytes | str | int) -> bool:
        answer = await self._eval(script, key, *arguments)
        if answer is None:
            self._dropped += 1
        return answer == 1

    async def _eval(self, script: str, key: str, *arguments: bytes | str | int) -> int | None:
        return await self._call(
            lambda: cast(
                Awaitable[int], self._client.eval(script, 1, key, *cast(tuple[str], arguments))
            )
        )

    async def _call(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """The store's answer; None if it is away."""
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
                # The store is there, only the key is none of ours.
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
            logger.info("the context store answers again")
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
            logger.warning("the context store is away, going on without it: %s", reason)

    def _report_unreadable(self, error: Exception) -> None:
        if not self._warned_unreadable:
            self._warned_unreadable = True
            logger.warning(
                "unreadable records in the context store count as missing (said once): %s", error
            )


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))

"""Valkey goes away in the middle and comes back; nothing raises and nothing waits for long."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from redis import asyncio as aioredis

from plato.context import CircuitBreaker
from plato.context.embedded import EmbeddedValkey
from plato.context.keys import Keys
from plato.context.redis import RedisContextStore
from plato.runs import BEFORE_ALL, EventId
from plato.scheduling.kv_events import publish_kv_events
from tests.clock import Clock
from tests.scheduling.helpers import until

from .examples import node, run

TIMEOUT_S = 0.3
SLACK_S = 0.3


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(valkey: EmbeddedValkey, clock: Clock) -> AsyncIterator[RedisContextStore]:
    breaker = CircuitBreaker(threshold=3, cooldown_s=1.0, clock=clock)
    store = RedisContextStore(valkey.url, timeout_s=TIMEOUT_S, breaker=breaker)
    for _ in range(50):  # Until a loaded machine has made the first connection.
        if await store.put_run(run()):
            break
        clock.now += 1
    assert store.available
    yield store
    await store.close()


async def call_everything(store: RedisContextStore) -> None:
    assert not await store.ping()
    assert not await store.put_run(run())
    assert await store.get_run("acme", "run-1") is None
    assert not await store.put_node(node(), 1)
    assert await store.get_nodes("acme", "run-1") == {}
    assert not await store.append_kv_events(b"entry")
    assert await store.read_kv_events("") is None
    assert await store.acquire("acme", "run-1", "a", 10) is None
    assert not await store.extend("acme", "run-1", "a", 1, 10)
    await store.release("acme", "run-1", "a", 1)
    assert not await store.append_events("acme", "run-1", EventId(1, 0), 1, b"events")
    assert await store.read_events("acme", "run-1", BEFORE_ALL) == ()
    assert await store.orphans() == ()
    await store.forget("acme", "run-1")


async def test_with_the_server_killed_every_call_returns_nothing_in_time(store, valkey):
    valkey.close()
    started = time.monotonic()
    await call_everything(store)
    assert time.monotonic() - started < TIMEOUT_S + SLACK_S
    assert not store.available


async def test_a_server_that_hangs_costs_one_deadline(store, valkey):
    os.kill(valkey.pid, signal.SIGSTOP)
    started = time.monotonic()
    await call_everything(store)
    assert time.monotonic() - started < TIMEOUT_S + SLACK_S
    assert not store.available


async def test_a_server_that_hangs_while_connecting_costs_one_deadline(valkey):
    os.kill(valkey.pid, signal.SIGSTOP)
    store = RedisContextStore(valkey.url, timeout_s=TIMEOUT_S)
    started = time.monotonic()
    await call_everything(store)
    assert time.monotonic() - started < TIMEOUT_S + SLACK_S
    assert not store.available
    await store.close()


async def test_lost_writes_are_counted(store, valkey):
    valkey.close()
    await call_everything(store)
    assert store.dropped == 4


async def test_while_the_breaker_is_open_nothing_touches_the_network(store, valkey, clock):
    valkey.close()
    await call_everything(store)
    connections = 0

    def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    port = urlsplit(valkey.url).port
    async with await asyncio.start_server(count, "127.0.0.1", port):
        await call_everything(store)
        await asyncio.sleep(0.05)
        assert connections == 0
        clock.now += 1.0
        await asyncio.gather(*(store.get_run("acme", "run-1") for _ in range(10)))
        await asyncio.sleep(0.05)
        assert connections == 1


async def test_everything_works_again_when_the_server_is_back(store, valkey, clock):
    valkey.close()
    await call_everything(store)
    valkey.start()
    assert await store.get_run("acme", "run-1") is None
    assert not store.available

    clock.now += 1.0
    for _ in range(50):
        if await store.put_run(run()):
            break
        clock.now += 1.0
    assert store.available
    assert await store.get_run("acme", "run-1") == run()
    assert await store.acquire("acme", "run-1", "a", 10)


async def test_a_decoder_with_nothing_to_tell_notices_that_the_server_is_back(valkey):
    class Idle:
        epoch = "epoch"

        async def take_kv_events(self):
            return None

    live = RedisContextStore(valkey.url, breaker=CircuitBreaker(cooldown_s=0.1))
    os.kill(valkey.pid, signal.SIGSTOP)
    assert not await live.ping()
    assert not live.available
    os.kill(valkey.pid, signal.SIGCONT)
    publishing = asyncio.create_task(publish_kv_events(Idle(), "decoder", live))
    try:
        await until(lambda: live.available)
    finally:
        publishing.cancel()
        await asyncio.wait([publishing])
        await live.close()


async def test_answers_are_not_mixed_up_after_a_hang(store, valkey, clock):
    await store.put_run(run("other"))
    os.kill(valkey.pid, signal.SIGSTOP)
    calls = [asyncio.create_task(store.get_run("acme", "run-1")) for _ in range(4)]
    assert await asyncio.gather(*calls) == [None] * 4
    os.kill(valkey.pid, signal.SIGCONT)
    for _ in range(50):
        clock.now += 1.0
        if (record := await store.get_run("acme", "other")) is not None:
            break
    assert record == run("other")
    assert await store.get_nodes("acme", "run-1") == {}


async def test_a_caller_that_is_cancelled_gets_its_cancellation_and_harms_nobody(store, valkey):
    os.kill(valkey.pid, signal.SIGSTOP)
    call = asyncio.create_task(store.get_run("acme", "run-1"))
    await asyncio.sleep(0.05)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    os.kill(valkey.pid, signal.SIGCONT)
    assert store.available
    assert await store.get_nodes("acme", "run-1") == {}
    assert await store.get_run("acme", "run-1") == run()


async def test_a_store_that_was_replaced_by_another_is_used_again(
    valkey: EmbeddedValkey, shared_valkey: EmbeddedValkey, store: RedisContextStore, clock: Clock
) -> None:
    valkey.close()
    await call_everything(store)
    assert not store.available
    await store.reconnect(shared_valkey.url)
    clock.now += 2
    assert await store.ping()
    assert store.available
    assert await store.put_run(run("moved"))
    async with aioredis.Redis.from_url(shared_valkey.url, protocol=2) as other:
        assert await other.exists(Keys().run("acme", "moved"))

"""A tenant's runs have a share of the store: they evict its own ended runs, and no others."""

from dataclasses import replace

import pytest

from plato.context import MemoryContextStore
from plato.context.embedded import EmbeddedValkey
from plato.context.redis import RedisContextStore
from plato.errors import StorageQuotaError
from plato.runs import BEFORE_ALL, EventId

from .examples import node, run

pytestmark = pytest.mark.hostile

QUOTA = 100_000


@pytest.fixture
async def redis_store(client, shared_valkey):
    opened = RedisContextStore(shared_valkey.url, timeout_s=5.0, ttl_s=60, quota_bytes=QUOTA)
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", "redis"])
def store(request):
    if request.param == "memory":
        return MemoryContextStore(quota_bytes=QUOTA)
    return request.getfixturevalue("redis_store")


def sized(name, size, state="done", tenant="acme"):
    return replace(run(name, tenant), request=size * b"x", state=state)


async def stored(store, *names, tenant="acme"):
    return [name for name in names if await store.get_run(tenant, name) is not None]


async def test_the_oldest_ended_runs_make_room(store):
    await store.put_run(sized("other", 90_000, tenant="quiet"))
    for name in "abcde":
        assert await store.put_run(sized(name, 30_000))
    assert await stored(store, *"abcde") == ["c", "d", "e"]
    assert await stored(store, "other", tenant="quiet") == ["other"]


async def test_nodes_and_events_count_and_go_with_their_run(store):
    for name in "abc":
        await store.put_run(sized(name, 0, state="running"))
        await store.put_node(node(name, text=15_000 * "x"), 1)
        await store.append_events("acme", name, EventId(1, 0), 1, 15_000 * b"x")
        await store.put_run(sized(name, 0))
    await store.put_run(sized("d", 0, state="running"))
    await store.append_events("acme", "d", EventId(1, 0), 1, 15_000 * b"x")
    assert await stored(store, *"abcd") == ["b", "c", "d"]
    assert await store.get_nodes("acme", "a") == {}
    assert await store.read_events("acme", "a", BEFORE_ALL) == ()


async def test_what_is_written_again_counts_once(store):
    await store.put_run(sized("a", 30_000))
    for _ in range(5):
        await store.put_run(sized("b", 30_000))
        await store.put_node(node("b", text=30_000 * "x"), 1)
        await store.append_events("acme", "b", EventId(1, 0), 1, b"x")
    assert await stored(store, *"ab") == ["a", "b"]


async def test_runs_in_progress_stay_and_a_new_one_is_refused(store):
    for name in "abc":
        await store.put_run(sized(name, 30_000, state="running"))
    with pytest.raises(StorageQuotaError, match=r"in progress .* wait for one of them"):
        await store.put_run(sized("d", 30_000, state="running"))
    assert await store.put_run(sized("e", 30_000, state="running", tenant="quiet"))
    # Those that are stored already are written to their end.
    assert await store.append_events("acme", "a", EventId(1, 0), 1, 50_000 * b"x")
    assert await store.put_node(node("a", text=50_000 * "x"), 1)
    assert await store.put_run(sized("a", 30_000))
    assert await store.put_run(sized("d", 30_000, state="running"))
    assert await stored(store, *"abcd") == ["b", "c", "d"]


async def test_a_run_that_was_taken_up_again_is_in_progress(store):
    await store.put_run(sized("a", 60_000))
    await store.put_run(sized("a", 60_000, state="running"))
    with pytest.raises(StorageQuotaError):
        await store.put_run(sized("b", 60_000))
    assert await stored(store, *"ab") == ["a"]


async def test_a_run_that_has_expired_does_not_count(client, redis_store):
    await redis_store.put_run(sized("a", 60_000, state="running"))
    # As its time to live does, and the server when its memory is full.
    assert await client.delete("plato:acme:{a}:state")
    assert await redis_store.put_run(sized("b", 60_000))
    assert await client.hkeys("plato:acme:usage") == [b"total", b"plato:acme:{b}:"]


async def test_a_tenant_whose_usage_was_lost_in_part_is_not_locked_out(client, redis_store):
    await redis_store.put_run(sized("a", 90_000))
    await client.delete("plato:acme:written")
    assert await redis_store.put_run(sized("b", 90_000))
    assert await redis_store.put_run(sized("c", 90_000))


async def test_a_loud_tenant_does_not_fill_the_server():
    with EmbeddedValkey(max_memory_mb=16) as valkey:
        store = RedisContextStore(valkey.url, timeout_s=5.0, ttl_s=60, quota_bytes=4 << 20)
        quiet = [f"quiet-{number}" for number in range(6)]
        for name in quiet:
            assert await store.put_run(sized(name, 10_000, tenant="quiet"))
        for number in range(70):
            assert await store.put_run(sized(f"loud-{number}", 500_000, tenant="loud"))
        assert await stored(store, *quiet, tenant="quiet") == quiet
        assert await stored(store, "loud-68", "loud-69", tenant="loud") == ["loud-68", "loud-69"]
        await store.close()

"""What is particular to the store in Valkey: format, lifetime, unreadable records."""

import asyncio
import logging
from urllib.parse import urlsplit

import pytest

from plato.context.keys import Keys
from plato.context.records import pack
from plato.context.redis import RedisContextStore
from plato.errors import SettingsError
from plato.runs import EventId

from .examples import node, run

KEYS = Keys()


async def write_everything(store: RedisContextStore) -> None:
    assert await store.put_run(run("written"))
    assert await store.put_node(node("written"), 1)
    assert await store.append_kv_events(b"entry")
    fence = await store.acquire("acme", "owned", "a", 1)
    assert fence
    assert await store.extend("acme", "owned", "a", fence, 1)
    fence = await store.acquire("acme", "released", "a", 1)
    assert fence
    assert await store.append_events("acme", "released", EventId(1, 0), fence, b"events")
    await store.release("acme", "released", "a", fence)


async def test_every_key_has_a_ttl(redis_store, client):
    await write_everything(redis_store)
    keys = [key async for key in client.scan_iter()]
    assert len(keys) == 10
    for key in keys:
        assert 0 < await client.ttl(key) <= 60


async def test_every_key_of_a_tenant_lies_under_its_prefix(redis_store, client):
    await write_everything(redis_store)
    for tenant in ("evil:*", "acme:{x}", "acm?"):
        await redis_store.put_run(run("b", tenant))
    keys = [key.decode() async for key in client.scan_iter()]
    assert all(key.startswith("plato:") for key in keys)
    assert len([key for key in keys if key.startswith("plato:acme:")]) == 8


async def test_a_write_starts_the_ttl_again(redis_store, client):
    await redis_store.put_run(run())
    await client.expire(KEYS.run("acme", "run-1"), 5)
    await redis_store.put_run(run())
    assert await client.ttl(KEYS.run("acme", "run-1")) > 50


async def test_records_end_with_their_ttl(shared_valkey, client):
    store = RedisContextStore(shared_valkey.url, timeout_s=5.0, ttl_s=1)
    await store.put_node(node(), 1)
    assert await store.get_nodes("acme", "run-1")
    await asyncio.sleep(1.1)
    assert await store.get_nodes("acme", "run-1") == {}
    await store.close()


async def test_fences_go_on_rising_when_the_store_lost_everything(redis_store, client):
    old = await redis_store.acquire("acme", "run-1", "a", 10)
    await asyncio.sleep(0.005)
    await client.flushdb()
    assert not await redis_store.extend("acme", "run-1", "a", old, 10)
    new = await redis_store.acquire("acme", "run-1", "b", 10)
    assert new > old
    assert not await redis_store.put_run(run(fence=old))


async def test_two_stores_see_each_others_writes(redis_store, shared_valkey):
    other = RedisContextStore(shared_valkey.url, timeout_s=5.0)
    await redis_store.put_run(run())
    assert await other.get_run("acme", "run-1") == run()
    await other.close()


async def test_unreadable_records_count_as_missing_and_are_logged_once(redis_store, client, caplog):
    caplog.set_level(logging.WARNING, "plato.context")
    await redis_store.put_node(node(number=1), 1)
    other_version = b"\x93\x63" + pack(node(number=2))[2:]
    await client.hset(KEYS.nodes("acme", "run-1"), mapping={"2": other_version, "3": b"garbage"})
    await client.hset(KEYS.run("acme", "run-1"), "record", b"")

    assert list(await redis_store.get_nodes("acme", "run-1")) == [1]
    assert await redis_store.get_run("acme", "run-1") is None
    assert redis_store.available
    assert len(caplog.records) == 1
    assert "unreadable" in caplog.text


async def test_a_key_of_another_type_counts_as_missing(redis_store, client):
    for key in (
        KEYS.run("acme", "run-1"),
        KEYS.nodes("acme", "run-1"),
    ):
        await client.set(key, "a string")
    for _ in range(3):
        assert await redis_store.get_run("acme", "run-1") is None
        assert await redis_store.get_nodes("acme", "run-1") == {}
        assert await redis_store.acquire("acme", "run-1", "a", 10) is None
        assert not await redis_store.put_run(run())
    assert redis_store.available


async def test_a_url_of_something_else_is_a_settings_error():
    with pytest.raises(SettingsError, match="PLATO_REDIS_URL"):
        RedisContextStore("http://localhost:6379")


async def test_a_wrong_password_is_a_store_that_is_away_and_stays_secret(shared_valkey, caplog):
    port = urlsplit(shared_valkey.url).port
    store = RedisContextStore(f"redis://:wrong-secret@127.0.0.1:{port}", timeout_s=5.0)
    assert await store.get_run("acme", "run-1") is None
    assert not store.available
    assert "context store unavailable" in caplog.text
    assert "wrong-secret" not in caplog.text
    await store.close()


MODELS = Keys("app", "one model"), Keys("app", "another model"), Keys("another app", "one model")


async def test_only_the_same_application_with_the_same_model_adopts_a_run(shared_valkey, client):
    stores = [RedisContextStore(shared_valkey.url, keys, timeout_s=5.0) for keys in MODELS]
    for number, store in enumerate(stores):
        assert await store.acquire("acme", f"run-{number}", "owner", 0.001)
    await asyncio.sleep(0.01)
    for number, store in enumerate(stores):
        assert await store.orphans() == (("acme", f"run-{number}"),)
        await store.close()


async def test_only_the_same_application_with_the_same_model_reads_kv_events(shared_valkey, client):
    stores = [RedisContextStore(shared_valkey.url, keys, timeout_s=5.0) for keys in MODELS]
    for number, store in enumerate(stores):
        assert await store.append_kv_events(b"%d" % number)
    for number, store in enumerate(stores):
        ((_, entry),) = await store.read_kv_events("0")
        assert entry == b"%d" % number
        await store.close()


async def test_an_answer_can_be_read_after_the_model_was_replaced_but_not_by_others(
    shared_valkey, client
):
    old, new, other = (RedisContextStore(shared_valkey.url, keys, timeout_s=5.0) for keys in MODELS)
    await old.put_run(run())
    assert await new.get_run("acme", "run-1") == run()
    assert await other.get_run("acme", "run-1") is None
    for store in (old, new, other):
        await store.close()


async def test_runs_that_have_expired_are_not_listed(redis_store, client):
    for name in ("one", "two", "three"):
        await redis_store.put_run(run(name))
    await client.delete(KEYS.run("acme", "two"))
    assert len(await redis_store.list_runs("acme", limit=2)) == 2
    assert await client.zcard(KEYS.created("acme")) == 2

from collections.abc import AsyncIterator, Iterator

import pytest
from redis import asyncio as aioredis

from plato.context.embedded import EmbeddedValkey
from plato.context.redis import RedisContextStore


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as valkey:
        yield valkey


@pytest.fixture
def valkey() -> Iterator[EmbeddedValkey]:
    """A server of this test alone, for tests that hurt it."""
    with EmbeddedValkey() as valkey:
        yield valkey


@pytest.fixture
async def client(shared_valkey: EmbeddedValkey) -> AsyncIterator[aioredis.Redis]:
    """A look past the store; the server is empty when a test starts."""
    async with aioredis.Redis.from_url(shared_valkey.url, protocol=2) as client:
        await client.flushdb()
        yield client


@pytest.fixture
async def redis_store(
    shared_valkey: EmbeddedValkey, client: aioredis.Redis
) -> AsyncIterator[RedisContextStore]:
    # A generous deadline: nothing here is about slowness, and test machines are slow.
    store = RedisContextStore(shared_valkey.url, timeout_s=5.0, ttl_s=60)
    yield store
    await store.close()

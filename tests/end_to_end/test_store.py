"""What a run leaves in the context store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis.asyncio

# Before anything imports Ray: it sets what Ray reads once.
from deployments.local import APP_NAME, LocalApp  # isort: skip
from openai import OpenAI
from ray import serve

from plato.api.access.tenants import hashed_tenant
from plato.context.redis import RedisContextStore
from plato.ports import free_port
from plato.settings import Settings

pytestmark = pytest.mark.soak


@pytest.fixture
def app(model_folder: str) -> Iterator[LocalApp]:
    """The application, whose embedded store this process can reach."""
    settings = Settings(model=model_folder, served_model_name="small")
    with LocalApp(settings, port=free_port()) as running:
        yield running


async def test_a_run_leaves_state_outputs_and_handles_with_a_ttl(app: LocalApp) -> None:
    client = OpenAI(base_url=f"{app.url}/v1", api_key="test-key", max_retries=0, timeout=120)
    answer: Any = await asyncio.to_thread(
        client.chat.completions.create,
        model="small",
        messages=[{"role": "user", "content": "Compare tea and coffee."}],
        extra_body={
            "plato": {
                "mode": "plato",
                "plan": [
                    {"title": "Tea", "max_tokens": 8},
                    {"title": "Coffee", "max_tokens": 8},
                    {"title": "Choice", "dependencies": [1, 2], "max_tokens": 8},
                ],
            }
        },
    )
    run = answer.plato["run"]
    tenant = hashed_tenant("test-key")
    owner: Any = serve.get_deployment_handle("StoreOwner", APP_NAME)
    url = await owner.url.remote()
    store = RedisContextStore(url)
    try:
        for _ in range(100):
            record = await store.get_run(tenant, run)
            if record is not None and record.state == "done":
                break
            await asyncio.sleep(0.02)
        assert record is not None
        assert record.state == "done"
        assert [node.title for node in record.nodes] == ["Tea", "Coffee", "Choice"]
        assert record.fence > 0
        nodes = await store.get_nodes(tenant, run)
        assert sorted(nodes) == [1, 2, 3]
        assert all(len(node.tokens) == 8 for node in nodes.values())
        assert nodes[3].text.strip() in answer.choices[0].message.content
        assert await store.get_run("somebody-else", run) is None
    finally:
        await store.close()

    async with redis.asyncio.from_url(url) as raw:
        keys = [key async for key in raw.scan_iter("*")]
        assert any(b":kv" in key for key in keys), "KV handles are written"
        assert all([await raw.pttl(key) > 0 for key in keys])

"""The same interface over a runtime of this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio

from plato.client import LocalClient, Update
from plato.errors import PlatoError
from plato.runtime import Runtime
from plato.settings import Settings

# One event loop for all of this file: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tiny_model_folder: str) -> AsyncIterator[LocalClient]:
    settings = Settings(
        model=tiny_model_folder, served_model_name="tiny", kv_budget_mb=16, node_max_tokens=6
    )
    async with await Runtime.open(settings) as runtime:
        yield LocalClient(runtime, settings)


async def ask(client: LocalClient, **options: Any) -> list[Update]:
    async with aclosing(client.ask("Why is the sea salty?", options)) as updates:
        return [update async for update in updates]


async def test_it_says_what_a_server_would(client: LocalClient) -> None:
    plan = [{"title": "Salt"}, {"title": "Depth", "dependencies": [1]}]
    updates = await ask(client, plato={"plan": plan, "headings": True})
    text = "".join(update.text for update in updates)
    assert text.startswith("## Salt\n\n")
    kinds = [update.event["type"] for update in updates if update.event]
    assert kinds[0] == "node_planned"
    assert kinds[-1] == "node_finished"
    last = updates[-1]
    assert last.finish_reason == "length"
    assert last.info is not None
    assert json.loads(json.dumps(last.info)) == last.info


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"plato": {"mode": "fast"}}, "plato.mode"),
        ({"plato": {"plan": ["Salt"]}}, r"plato\.plan"),
        ({"plato": {"plan": [{"title": "A", "dependencies": [2]}, {"title": "B"}]}}, "part 1"),
    ],
)
async def test_wrong_options_are_refused_as_a_server_would(
    client: LocalClient, options: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(PlatoError, match=wrong) as raised:
        await ask(client, **options)
    assert raised.value.status == 400


async def test_leaving_ends_the_run(client: LocalClient) -> None:
    options = {"max_tokens": 1500, "plato": {"mode": "sequential", "exact_lengths": True}}
    async with aclosing(client.ask("Why?", options)) as updates:
        async for update in updates:
            if update.event and update.event["type"] == "node_output":
                break
    # The engine is free again at once: the next answer does not wait for the last one.
    (first, *_) = await ask(client, max_tokens=2, plato={"mode": "sequential"})
    assert first.event is not None

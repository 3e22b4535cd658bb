"""The same interface over a runtime of this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio

from plato.client import Answer, Asker, AsyncClient, LocalClient, Update
from plato.display import RunView
from plato.errors import PlatoError
from plato.runs import Node, NodeFinished, NodeOutput, NodePlanned
from plato.runtime import Runtime
from plato.settings import Settings
from tests.serving import serving

# One event loop for all of this file: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(tiny_model_folder: str) -> AsyncIterator[Runtime]:
    settings = Settings(
        model=tiny_model_folder,
        served_model_name="tiny",
        kv_budget_mb=16,
        temperature=0.0,
        node_max_tokens=6,
        lease_ttl_s=10,
        equal_work=True,
    )
    async with await Runtime.open(settings) as opened:
        yield opened


@pytest.fixture
def client(runtime: Runtime) -> LocalClient:
    return LocalClient(runtime)


def folded(updates: list[Update]) -> list[tuple[Node, str]]:
    """The parts and their texts, as the events have them."""
    view = RunView()
    for update in updates:
        if update.event is not None:
            view.feed(update.event)
    return [(node, view.state.nodes[node.number].text) for node in view.state.planned_nodes]


async def ask(client: Asker, **options: Any) -> list[Update]:
    async with aclosing(client.stream("Why is the sea salty?", **options)) as updates:
        return [update async for update in updates]


def answer(updates: list[Update]) -> Answer:
    """The answer, which the last update has."""
    (found,) = (update.answer for update in updates if update.answer is not None)
    assert updates[-1].answer is found
    return found


async def test_it_says_what_a_server_would(client: LocalClient, runtime: Runtime) -> None:
    plan = [{"title": "Salt"}, {"title": "Depth", "dependencies": [1]}]
    updates = await ask(client, plan=plan, headings=True)
    text = "".join(update.text for update in updates)
    assert text.startswith("## Salt\n\n")
    kinds = [type(update.event) for update in updates if update.event]
    assert kinds[0] is NodePlanned
    assert kinds[-1] is NodeFinished
    async with (
        serving(runtime.service, runtime.settings) as url,
        AsyncClient(url) as served,
    ):
        told = await ask(served, plan=plan, headings=True)
    here, there = answer(updates), answer(told)
    assert here.text == there.text == text
    assert here.finish_reason == there.finish_reason == "stop"
    assert [part.title for part in there.graph.nodes] == ["Salt", "Depth"]
    assert there.info.mode is here.info.mode
    assert there.usage.completion_tokens == here.usage.completion_tokens
    assert folded(told) == folded(updates)


async def test_the_report_has_what_max_tokens_cut(client: LocalClient) -> None:
    plan = [{"title": title, "max_tokens": 6} for title in ("Salt", "Depth", "Tides")]
    nodes = (await client.ask("Why?", max_tokens=8, plan=plan)).graph.nodes
    assert [node.answer_tokens for node in nodes] == [6, 2, 0]
    assert [node.cut for node in nodes] == ["budget", "max_tokens", "max_tokens"]


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"mode": "fast"}, "plato.mode"),
        ({"plan": ["Salt"]}, r"plato\.plan"),
        ({"plan": [{"title": "A", "dependencies": [2]}, {"title": "B"}]}, "part 1"),
    ],
)
async def test_wrong_options_are_refused_as_a_server_would(
    client: LocalClient, options: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(PlatoError, match=wrong) as raised:
        await ask(client, **options)
    assert raised.value.status == 400


async def test_leaving_ends_the_run(client: LocalClient, runtime: Runtime) -> None:
    options = {"max_tokens": 1500, "mode": "sequential", "exact_lengths": True}
    async with aclosing(client.stream("Why?", **options)) as updates:
        async for update in updates:
            if isinstance(update.event, NodeOutput):
                assert runtime.scheduler.runs
                break
    assert not runtime.scheduler.runs


async def test_an_empty_question_is_told_before_it_is_sent(client: LocalClient) -> None:
    with pytest.raises(PlatoError, match="the question is empty"):
        await client.ask(" ")

"""Runs of a real server, and of one whose streams break off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from plato.api.runs.object import RunObject
from plato.api.runs.stream import event_data
from plato.client import AsyncClient, Client, RunUpdate, UnreachableError
from plato.errors import AuthenticationError, RunNotFoundError, UnavailableError
from plato.runs import (
    EventId,
    Mode,
    ModeChosen,
    Node,
    NodePlanned,
    RunEvent,
    RunFailed,
    RunFinished,
    RunState,
)
from plato.runtime import Runtime
from plato.settings import Settings
from tests.replaying import ReplayServer, event
from tests.runs.examples import REPORT, request
from tests.serving import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTION = "Why is the sea salty?"
KEY = "sk-a-key-of-one-tenant"
EVENTS: tuple[RunEvent, ...] = (
    NodePlanned("r", 0.1, Node(1, "Salt"), id=EventId(1, 0)),
    ModeChosen("r", 0.2, Mode.PLATO, id=EventId(1, 1), text="The é", text_offset=0),
    ModeChosen("r", 0.2, Mode.PLATO, id=EventId(1, 2), text="nd ", text_offset=6),
    RunFinished(
        "r", 3.0, replace(REPORT, finish_reason="stop"), id=EventId(1, 3), text="x", text_offset=9
    ),
)


def sent(*events: RunEvent) -> list[bytes]:
    """What a server sends of the events of a run."""
    state, pieces = RunState(request()), []
    for happened in events:
        state.feed(happened)
        pieces.append(event(event_data(happened, state, "small")))
    return pieces


async def follow(client: AsyncClient, run_id: str, **options: Any) -> list[RunUpdate]:
    async with aclosing(client.runs.follow(run_id, **options)) as updates:
        return [update async for update in updates]


class TestFollowing:
    async def test_it_connects_again_behind_the_last_event(self) -> None:
        one, two, three, end = sent(*EVENTS)
        with ReplayServer(one, two, None, three[:20], None, three, end) as server:
            async with AsyncClient(server.url) as client:
                updates = await follow(client, "r")
            after = [headers["Last-Event-ID"] for headers in server.headers]
        assert after == ["0-0", "1-1", "1-1"]
        assert [update.event for update in updates] == [*EVENTS[:3], None]
        assert [update.text for update in updates] == ["", "The é", "nd ", "x"]
        assert updates[-1].run is not None
        assert updates[-1].run.answer == "The énd x"

    async def test_text_that_is_sent_again_after_a_takeover_comes_once(self) -> None:
        again = replace(EVENTS[1], id=EventId(2, 0))
        pieces = sent(*EVENTS[:3], again, EVENTS[3])
        with ReplayServer(*pieces[:3], None, *pieces[3:]) as server:
            async with AsyncClient(server.url) as client:
                updates = await follow(client, "r")
        assert "".join(update.text for update in updates) == "The énd x"

    async def test_a_run_that_failed_is_told_and_not_raised(self) -> None:
        failed = RunFailed("r", 1.0, 504, "server_error", "deadline_exceeded", "too late")
        with ReplayServer(*sent(failed)) as server:
            async with AsyncClient(server.url) as client:
                (update,) = await follow(client, "r")
        assert update.run is not None
        assert update.run.status == "failed"
        assert update.run.error is not None
        assert update.run.error.message == "too late"

    async def test_it_gives_up_when_the_server_stays_away(self) -> None:
        with ReplayServer(*sent(*EVENTS[:2]), None) as server:
            async with AsyncClient(server.url) as client:
                updates = client.runs.follow("r", patience_s=0.5)
                assert [(await anext(updates)).text for _ in range(2)] == ["", "The é"]
                async with asyncio.timeout(5):
                    with pytest.raises(UnavailableError):
                        await anext(updates)

    async def test_what_never_answers_is_told_at_once(self) -> None:
        async with AsyncClient("http://127.0.0.1:9") as client:
            with pytest.raises(UnreachableError):
                await follow(client, "r")

    async def test_an_event_of_a_later_release_is_passed_over(self) -> None:
        one, *_, end = sent(*EVENTS)
        unknown = {**json.loads(one[6:]), "type": "node_paused", "id": "1-7"}
        with ReplayServer(one, event(unknown), end) as server:
            async with AsyncClient(server.url) as client:
                updates = await follow(client, "r")
        assert [update.event for update in updates] == [EVENTS[0], None, None]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tiny_model_folder: str) -> AsyncIterator[str]:
    settings = Settings(
        model=tiny_model_folder,
        served_model_name="tiny",
        kv_budget_mb=16,
        temperature=0.0,
        node_max_tokens=6,
        equal_work=True,
        api_keys=f"shop={KEY}",
    )
    async with (
        await Runtime.open(settings) as runtime,
        serving(runtime.service, settings) as served,
    ):
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def client(url: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(url, api_key=KEY) as opened:
        yield opened


class TestOfAServer:
    async def test_a_run_is_started_followed_found_and_listed(self, client: AsyncClient) -> None:
        plan = [{"title": "Salt"}, {"title": "Depth", "dependencies": [1]}]
        begun = await client.runs.start(QUESTION, plan=plan, metadata={"for": "a test"})
        assert (begun.status, begun.question) == ("running", QUESTION)
        updates = await follow(client, begun.id)
        ended = updates[-1].run
        assert ended is not None
        assert (ended.status, ended.metadata) == ("done", {"for": "a test"})
        assert "".join(update.text for update in updates) == ended.answer
        assert await client.runs.get(begun.id) == ended
        listed = await client.runs.list(limit=1, status="done")
        assert [run.id for run in listed.data] == [begun.id]

    async def test_a_run_is_cancelled(self, client: AsyncClient) -> None:
        endless = {"max_tokens": 1500, "mode": "sequential", "exact_lengths": True}
        begun = await client.runs.start(QUESTION, **endless)
        cancelled = await client.runs.cancel(begun.id)
        assert (await follow(client, begun.id))[-1].run == cancelled
        assert cancelled.status == "cancelled"
        page = await client.runs.list(before=begun.id, limit=1)
        assert begun.id not in [run.id for run in page.data]

    async def test_a_run_that_is_not_there_is_told(self, client: AsyncClient) -> None:
        for name in ("gone", "a b"):
            with pytest.raises(RunNotFoundError):
                await client.runs.get(name)
            with pytest.raises(RunNotFoundError):
                await follow(client, name)

    async def test_the_server_tells_what_it_is(self, client: AsyncClient) -> None:
        assert (await client.info()).model == "tiny"
        assert "tiny:plato" in await client.models()

    async def test_a_wrong_key_is_refused(self, url: str) -> None:
        async with AsyncClient(url, api_key="another") as client:
            with pytest.raises(AuthenticationError):
                await client.runs.list()

    async def test_without_an_event_loop(self, url: str) -> None:
        def use() -> tuple[RunObject, list[RunUpdate]]:
            with Client(url, api_key=KEY) as client:
                begun = client.runs.start(QUESTION, mode="sequential", max_tokens=3)
                updates = list(client.runs.follow(begun.id))
                assert client.runs.list(limit=1).data[0].id == begun.id
                assert client.runs.cancel(begun.id).status == "done"
                return client.runs.get(begun.id), updates

        found, updates = await asyncio.to_thread(use)
        assert updates[-1].run == found
        assert found.status == "done"

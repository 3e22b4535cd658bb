"""Clients of a real HTTP server that replays what a Plato server would say, or would not."""

from __future__ import annotations

import json
import threading
from contextlib import aclosing
from typing import Any

import pytest

from plato.api.answers.run_info import PlatoInfo
from plato.client import Client, HttpClient, Update
from plato.errors import PlatoError, UnavailableError
from plato.ports import free_port
from plato.runs import EventId, Node, NodePlanned, RunState
from tests.replaying import DONE, ReplayServer, delta, error, event, happened
from tests.runs.examples import request

EVENT = NodePlanned("r1", 0.5, Node(1, "Salt"), id=EventId(1, 3))
INFO = PlatoInfo.of(RunState(request()).report())
ANSWER = (
    happened(EVENT),
    delta("The Dead "),
    delta("Sea."),
    delta(finish="stop", **INFO.model_dump(mode="json")),
    event({"choices": [], "usage": {}}),
    DONE,
)
ODD = "may not be a Plato server"


async def ask(client: Client, **options: Any) -> list[Update]:
    async with aclosing(client.ask("Why is the sea salty?", options)) as updates:
        return [update async for update in updates]


async def test_text_events_and_the_report_arrive() -> None:
    with ReplayServer(*ANSWER) as server:
        updates = await ask(HttpClient(server.url))
    assert updates == [
        Update(event=EVENT),
        Update(text="The Dead "),
        Update(text="Sea."),
        Update(info=INFO, finish_reason="stop"),
    ]
    assert updates[0].event is not None
    assert updates[0].event.id == EVENT.id


async def test_an_event_of_a_later_release_is_passed_over() -> None:
    unknown = delta(event={"type": "node_paused", "run": "r1", "id": "1-4"})
    with ReplayServer(unknown, *ANSWER) as server:
        updates = await ask(HttpClient(server.url))
    assert [update.event for update in updates[:2]] == [None, EVENT]


async def test_a_chunk_may_be_cut_anywhere() -> None:
    whole = b"".join((b": ping\n\n", delta("Größe"), *ANSWER))
    pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    with ReplayServer(*pieces) as server:
        updates = await ask(HttpClient(server.url))
    assert "".join(update.text for update in updates) == "GrößeThe Dead Sea."


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_what_is_asked_for_is_sent(path: str) -> None:
    with ReplayServer(*ANSWER) as server:
        client = HttpClient(server.url + path, api_key="secret")
        await ask(client, max_tokens=5, plato={"mode": "skeleton"})
        (body,), (headers,) = server.bodies, server.headers
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "small",
        "messages": [{"role": "user", "content": "Why is the sea salty?"}],
        "stream": True,
        "max_tokens": 5,
        "plato": {"events": True, "mode": "skeleton"},
    }


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, error("send less", param="messages", code="too_long"), "send less"),
        (429, error("busy"), "busy"),
        (502, "<html>Bad gateway</html>", "status 502"),
        (500, {"detail": "odd"}, "status 500"),
    ],
)
async def test_a_refusal_is_told_in_the_servers_words(status: int, body: Any, message: str) -> None:
    replay = ReplayServer(json.dumps(body).encode(), status=status)
    with replay as server, pytest.raises(PlatoError, match=message) as raised:
        await ask(HttpClient(server.url))
    if status == 400:
        assert (raised.value.param, raised.value.code) == ("messages", "too_long")


async def test_an_error_in_the_middle_of_the_answer_ends_it() -> None:
    with ReplayServer(delta("The "), event(error("part 2 failed"))) as server:
        updates = HttpClient(server.url).ask("Why?", {})
        assert (await anext(updates)).text == "The "
        with pytest.raises(PlatoError, match="part 2 failed"):
            await anext(updates)


@pytest.mark.parametrize("last", [(), (None,)])
async def test_an_answer_that_breaks_off_is_no_answer(last: tuple[None, ...]) -> None:
    with ReplayServer(delta("The "), *last) as server, pytest.raises(UnavailableError):
        await ask(HttpClient(server.url))


@pytest.mark.parametrize(
    "piece",
    [
        b"data: {broken\n\n",
        b"data: 5\n\n",
        b'data: {"choices": [{}]}\n\n',
        delta(event={"type": "node_planned"}),
        delta(event={"type": "node_planned", "run": "r1", "id": "1-4", "at_s": 0, "node": 5}),
    ],
)
async def test_a_server_that_speaks_something_else_is_named(piece: bytes) -> None:
    with ReplayServer(piece, DONE) as server, pytest.raises(UnavailableError, match=ODD):
        await ask(HttpClient(server.url))


@pytest.mark.parametrize("models", [b"[]", b"<html>", b'{"data": []}'])
async def test_a_server_without_a_model_is_named(models: bytes) -> None:
    with ReplayServer(*ANSWER, models=models) as server, pytest.raises(UnavailableError, match=ODD):
        await ask(HttpClient(server.url))


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "nonsense", "http://[::1", "ftp://x"])
async def test_a_server_that_is_not_there_is_a_clear_error(url: str) -> None:
    client = HttpClient(url.format(port=free_port()))
    with pytest.raises(UnavailableError, match="plato serve"):
        await ask(client)
    assert not await client.answers()


async def test_a_server_that_is_there_answers() -> None:
    with ReplayServer() as server:
        assert await HttpClient(server.url).answers()


async def test_this_machines_server_is_not_looked_for_behind_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with ReplayServer(*ANSWER) as server:
        assert len(await ask(HttpClient(server.url))) == 4


async def test_leaving_an_answer_hangs_up() -> None:
    with ReplayServer(delta("The "), threading.Event()) as server:
        async with aclosing(HttpClient(server.url).ask("Why?", {})) as updates:
            async for _ in updates:
                break
        assert server.left.wait(5)

"""A client of a real HTTP server that replays what a Plato server would say, or would not."""

from __future__ import annotations

import gc
import json
import threading
from contextlib import aclosing
from typing import Any

import pytest

from plato.api.answers.run_info import PlatoInfo, Usage
from plato.client import Answer, AsyncClient, Client, UnreachableError, Update
from plato.errors import (
    AuthenticationError,
    ContextLengthError,
    DeadlineError,
    InvalidRequestError,
    OverloadedError,
    PlatoError,
    RateLimitError,
    UnavailableError,
)
from plato.ports import free_port
from plato.runs import EventId, Mode, Node, NodePlanned, RunState
from tests.replaying import DONE, ReplayServer, delta, error, event, happened
from tests.runs.examples import request

QUESTION = "Why is the sea salty?"
EVENT = NodePlanned("r1", 0.5, Node(1, "Salt"), id=EventId(1, 3))
REPORT = RunState(request()).report()
INFO, USAGE = PlatoInfo.of(REPORT), Usage.of(REPORT)
END = (
    delta(finish="stop", **INFO.model_dump(mode="json")),
    event({"choices": [], "usage": USAGE.model_dump(mode="json")}),
    DONE,
)
WHOLE = (happened(EVENT), delta("The Dead "), delta("Sea."), *END)
ODD = "may not be a Plato server"


async def ask(server: ReplayServer, **options: Any) -> Answer:
    async with AsyncClient(server.url) as client:
        return await client.ask(QUESTION, **options)


async def updates(server: ReplayServer) -> list[Update]:
    async with AsyncClient(server.url) as client, aclosing(client.stream(QUESTION)) as found:
        return [update async for update in found]


async def test_text_events_and_the_whole_answer_arrive() -> None:
    with ReplayServer(*WHOLE) as server:
        found = await updates(server)
    assert found == [
        Update(event=EVENT),
        Update(text="The Dead "),
        Update(text="Sea."),
        Update(answer=Answer("The Dead Sea.", "stop", INFO, USAGE)),
    ]
    assert found[0].event is not None
    assert found[0].event.id == EVENT.id


async def test_the_answer_alone() -> None:
    with ReplayServer(*WHOLE) as server:
        answer = await ask(server)
    assert str(answer) == "The Dead Sea."
    assert (answer.graph, answer.timings) == (INFO.graph, INFO.timings)


async def test_an_event_of_a_later_release_is_passed_over() -> None:
    unknown = delta("The ", event={"type": "node_paused", "run": "r1", "id": "1-4"})
    with ReplayServer(unknown, *WHOLE) as server:
        found = await updates(server)
    assert found[:2] == [Update(text="The "), Update(event=EVENT)]


async def test_a_chunk_may_be_cut_anywhere() -> None:
    whole = b"".join((b": ping\n\n", delta("Größe"), *WHOLE))
    pieces = [whole[at : at + 7] for at in range(0, len(whole), 7)]
    with ReplayServer(*pieces) as server:
        assert (await ask(server)).text == "GrößeThe Dead Sea."


async def test_text_may_have_what_unicode_calls_a_line_break() -> None:
    raw = 'data: {"choices": [{"delta": {"content": "a\u2028b\x85c"}}]}\n\n'.encode()
    with ReplayServer(raw, *END) as server:
        assert (await ask(server)).text == "a\u2028b\x85c"


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_what_is_asked_for_is_sent(path: str) -> None:
    plan = [{"title": "Salt"}]
    with ReplayServer(*WHOLE) as server:
        async with AsyncClient(server.url + path, api_key="secret") as client:
            await client.ask(
                QUESTION, max_tokens=5, mode=Mode.SKELETON, plan=plan, plato={"headings": True}
            )
        (body,), (headers,) = server.bodies, server.headers
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "plato": {"headings": True, "mode": "skeleton", "plan": plan, "events": True},
    }


async def test_a_conversation_is_sent_as_it_is() -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": QUESTION},
    ]
    with ReplayServer(*WHOLE) as server:
        async with AsyncClient(server.url) as client:
            await client.ask(messages)
        assert server.bodies[0]["messages"] == messages


async def test_what_is_no_json_is_not_sent() -> None:
    with (
        ReplayServer(*WHOLE) as server,
        pytest.raises(InvalidRequestError, match="cannot be written as JSON"),
    ):
        await ask(server, seed=threading.Lock())
    assert not server.bodies


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (400, error("send less", code="context_length_exceeded"), ContextLengthError, "send less"),
        (400, error("odd", code="new_code", param="n"), InvalidRequestError, "odd"),
        (401, error("who?", code="invalid_api_key"), AuthenticationError, "who"),
        (429, error("busy"), OverloadedError, "busy"),
        (429, error("enough", code="rate_limit_exceeded"), RateLimitError, "enough"),
        (502, "<html>Bad gateway</html>", UnavailableError, "status 502"),
        (504, {"detail": "odd"}, DeadlineError, "status 504"),
        (500, {"detail": "odd"}, PlatoError, "status 500"),
    ],
)
async def test_a_refusal_is_told_in_the_servers_words(
    status: int, body: Any, kind: type[PlatoError], message: str
) -> None:
    replay = ReplayServer(json.dumps(body).encode(), status=status)
    with replay as server, pytest.raises(kind, match=message) as raised:
        await ask(server)
    assert type(raised.value) is kind
    assert raised.value.status == status
    if message == "odd":
        assert (raised.value.param, raised.value.code) == ("n", "new_code")


async def test_an_error_in_the_middle_of_the_answer_ends_it() -> None:
    failed = event(error("too late", code="deadline_exceeded"))
    with ReplayServer(delta("The "), failed) as server:
        async with AsyncClient(server.url) as client:
            found = client.stream(QUESTION)
            assert (await anext(found)).text == "The "
            with pytest.raises(DeadlineError, match="too late"):
                await anext(found)


@pytest.mark.parametrize("last", [(), (None,), (b"data: {",)])
async def test_an_answer_that_breaks_off_is_no_answer(last: tuple[Any, ...]) -> None:
    replay = ReplayServer(delta("The "), *last)
    with replay as server, pytest.raises(UnavailableError, match="try again"):
        await ask(server)


@pytest.mark.parametrize(
    "pieces",
    [
        (b"data: {broken\n\n", DONE),
        (b"data: 5\n\n", DONE),
        (b'data: {"choices": [{}]}\n\n', DONE),
        (delta(event={"type": "node_planned"}), DONE),
        (delta(event={**json.loads(happened(EVENT)[6:])["plato"]["event"], "node": 5}), DONE),
        (b"<html>Welcome</html>\n\n",),
        (delta("text without a report"), DONE),
    ],
)
async def test_a_server_that_speaks_something_else_is_named(pieces: tuple[bytes, ...]) -> None:
    with ReplayServer(*pieces) as server, pytest.raises(UnavailableError, match=ODD):
        await ask(server)


@pytest.mark.parametrize("models", [b"[]", b"<html>", b'{"data": [5]}'])
async def test_models_that_are_none_are_told(models: bytes) -> None:
    with ReplayServer(models=models) as server, pytest.raises(UnavailableError, match=ODD):
        async with AsyncClient(server.url) as client:
            await client.models()


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "nonsense", "http://[::1", "ftp://x"])
async def test_a_server_that_is_not_there_is_a_clear_error(url: str) -> None:
    async with AsyncClient(url.format(port=free_port())) as client:
        with pytest.raises(UnreachableError, match=r"plato serve|write http://host:port"):
            await client.ask(QUESTION)
        assert not await client.answers()


@pytest.mark.parametrize("key", ["“quoted”", "two\nlines"])
def test_a_key_that_cannot_be_one_is_told(key: str) -> None:
    with pytest.raises(AuthenticationError, match="copy it again"):
        AsyncClient(api_key=key)


async def test_a_server_that_is_there_answers() -> None:
    with ReplayServer() as server:
        async with AsyncClient(server.url) as client:
            assert await client.answers()


async def test_this_machines_server_is_not_looked_for_behind_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with ReplayServer(*WHOLE) as server:
        assert (await ask(server)).text == "The Dead Sea."


async def test_leaving_an_answer_hangs_up() -> None:
    with ReplayServer(delta("The "), threading.Event()) as server:
        async with (
            AsyncClient(server.url) as client,
            aclosing(client.stream(QUESTION)) as found,
        ):
            async for _ in found:
                break
        assert server.left.wait(5)


class TestBlocking:
    """The same without an event loop."""

    def test_it_gives_the_same(self) -> None:
        with ReplayServer(*WHOLE) as server, Client(server.url) as client:
            found = list(client.stream(QUESTION))
            assert [update.text for update in found] == ["", "The Dead ", "Sea.", ""]
            assert client.ask(QUESTION) == found[-1].answer
            assert client.answers()

    async def test_it_works_where_an_event_loop_runs(self) -> None:
        with ReplayServer(*WHOLE) as server, Client(server.url) as client:
            assert client.ask(QUESTION).text == "The Dead Sea."

    def test_leaving_an_answer_hangs_up(self) -> None:
        replay = ReplayServer(delta("The "), threading.Event())
        with replay as server, Client(server.url) as client:
            for _ in client.stream(QUESTION):
                break
            assert server.left.wait(5)

    def test_nothing_is_left_behind(self, caplog: pytest.LogCaptureFixture) -> None:
        for _ in range(5):
            with ReplayServer(*WHOLE) as server, Client(server.url) as client:
                assert client.ask(QUESTION).text
                next(client.stream(QUESTION))
            gc.collect()
        assert "Task was destroyed" not in caplog.text

    def test_errors_arrive(self) -> None:
        with Client(f"http://127.0.0.1:{free_port()}") as client:
            with pytest.raises(UnreachableError):
                client.ask(QUESTION)
            with pytest.raises(UnreachableError):
                next(client.stream(QUESTION))

    def test_closing_twice_is_closing_once(self) -> None:
        client = Client()
        client.close()
        client.close()

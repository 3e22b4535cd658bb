"""Servers that are away, busy, broken or others than they should be: the right error, at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from plato.engine import (
    ContextExceededError,
    EngineBusyError,
    EngineError,
    EngineUnreadyError,
    OtherModelError,
    ReplicaHealth,
    RequestRefusedError,
    UpstreamError,
    replica_status,
)
from plato.engine.errors import KeyRefusedError
from plato.engine.openai import UpstreamEngine, health, transport
from tests.engine.openai.conftest import MakeEngine
from tests.engine.upstream.scripted import (
    DONE,
    ScriptedServer,
    ask,
    event,
    request,
    says,
    stream,
    usage,
)
from tests.engine.waiting import until


class BrokenPipe(Exception):  # noqa: N818 - what breaks a connection in `stream`
    pass


def openai_error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "code": status}}, status)


class TestStart:
    async def test_a_server_that_is_away_is_waited_for_and_then_named(
        self, make_engine: MakeEngine, server: ScriptedServer
    ) -> None:
        await server.http.stop()
        with pytest.raises(UpstreamError, match=f"{server.http.url}: .*away"):
            await make_engine(start_s=0.3)
        waiting = asyncio.create_task(make_engine(start_s=10.0))
        await asyncio.sleep(0.2)
        await server.http.start()
        assert (await ask(await waiting)).text == "hello"

    @pytest.mark.parametrize(
        ("models", "error", "message"),
        [
            ({"data": []}, EngineUnreadyError, "has no model yet"),
            ({"data": [{"id": "m", "owned_by": "acme"}]}, EngineError, "set upstream_dialect"),
            ({"models": "none"}, UpstreamError, "no list of models"),
            ([1, 2], UpstreamError, "no list of models"),
            ({"data": [{"id": 7}]}, UpstreamError, "no list of models"),
        ],
    )
    async def test_a_server_that_says_something_else_is_refused(
        self,
        make_engine: MakeEngine,
        server: ScriptedServer,
        models: object,
        error: type[EngineError],
        message: str,
    ) -> None:
        server.models = models
        with pytest.raises(error, match=message):
            await make_engine(start_s=0.3)

    async def test_a_server_that_has_no_model_yet_is_waited_for(
        self, make_engine: MakeEngine, server: ScriptedServer
    ) -> None:
        models, server.models = server.models, {"data": []}
        waiting = asyncio.create_task(make_engine(start_s=10.0))
        await asyncio.sleep(0.2)
        server.models = models
        assert (await ask(await waiting)).text == "hello"

    async def test_a_server_that_does_not_decode_is_refused(
        self, make_engine: MakeEngine, server: ScriptedServer
    ) -> None:
        server.probe_reply = lambda: Response(status_code=404)
        with pytest.raises(UpstreamError, match=r"/v1/completions: .* not serve this: status 404"):
            await make_engine(start_s=0.3)

    async def test_another_tokenizer_is_another_model(
        self, make_engine: MakeEngine, server: ScriptedServer
    ) -> None:
        server.shift = 1
        server.models["data"][0]["root"] = "owner/model"
        with pytest.raises(OtherModelError, match=r"another tokenizer .*set model to owner/model"):
            await make_engine()

    async def test_a_model_that_the_server_lacks_is_named_with_those_that_it_has(
        self, make_engine: MakeEngine
    ) -> None:
        with pytest.raises(OtherModelError, match="no model other, but model"):
            await make_engine(model="other")

    async def test_a_key_that_is_refused_is_said_at_once_without_the_words_of_the_server(
        self, make_engine: MakeEngine, server: ScriptedServer
    ) -> None:
        server.key = "right"
        with pytest.raises(
            EngineError, match=f"{server.http.url}: .*set PLATO_UPSTREAM_A"
        ) as raised:
            await make_engine(key="wrong", start_s=60.0)
        assert "who?" not in str(raised.value)

    async def test_an_unknown_server_can_be_given_a_dialect(
        self, make_engine: MakeEngine, server: ScriptedServer
    ) -> None:
        server.models["data"][0]["owned_by"] = "acme"
        assert (await ask(await make_engine(dialect="vllm"))).text == "hello"


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (lambda: openai_error(429, "slow down"), EngineBusyError, "no room: status 429$"),
        (lambda: Response(status_code=503), EngineUnreadyError, "not ready: status 503$"),
        (lambda: Response(status_code=307), UpstreamError, "redirects with status 307"),
        (lambda: openai_error(400, "the context length is 5"), ContextExceededError, "is 5"),
        (lambda: PlainTextResponse("<html>no", 400), RequestRefusedError, "request: status 400$"),
        (lambda: openai_error(400, "bad top_k"), RequestRefusedError, "bad top_k"),
        (lambda: JSONResponse({"detail": "nope"}, 422), RequestRefusedError, "nope"),
        (lambda: openai_error(404, "no model m"), UpstreamError, "not serve this: status 404$"),
        (lambda: PlainTextResponse("<html>no", 405), UpstreamError, "serve this: status 405$"),
        (lambda: Response(status_code=408), UpstreamError, "not serve this: status 408$"),
        (lambda: Response(status_code=413), RequestRefusedError, "request: status 413$"),
        (lambda: openai_error(401, "no sk-12**"), KeyRefusedError, "s: the server refuses .* key$"),
        (lambda: openai_error(403, "no sk-12**"), KeyRefusedError, "s: the server refuses .* key$"),
        (lambda: PlainTextResponse("boom", 500), UpstreamError, "failed with status 500$"),
        (
            lambda: PlainTextResponse("<html>hello</html>\n"),
            UpstreamError,
            "no stream of server-sent events$",
        ),
        (
            lambda: PlainTextResponse("<html>hello</html>"),
            UpstreamError,
            "no stream of server-sent events$",
        ),
        (lambda: stream("data: {nonsense\n\n"), UpstreamError, "no JSON$"),
        (lambda: stream("data: [1]\n\n"), UpstreamError, "no object$"),
        (lambda: stream('data: {"x": 1}\n\n'), UpstreamError, "does not answer like vllm"),
        (lambda: stream(event([97]), 'data: {"choices": ['), UpstreamError, "within an event"),
        (lambda: stream(event([97])), UpstreamError, "ended before the sequence"),
        (lambda: stream(event([97]), DONE), UpstreamError, "ended before the sequence"),
        (lambda: stream(event([97]), BrokenPipe), UpstreamError, "away"),
        (lambda: stream(event([97], "abort")), UpstreamError, "'abort'"),
        (lambda: stream(event(None)), UpstreamError, "no token ids"),  # type: ignore[arg-type]
        (
            lambda: stream(event([97]), 'data: {"error": {"code": 503, "message": "full"}}\n\n'),
            EngineUnreadyError,
            "status 503$",
        ),
        (
            lambda: stream(event([97]), 'data: {"error": "out of memory"}\n\n'),
            UpstreamError,
            "failed with status 500$",
        ),
    ],
)
async def test_every_failure_has_its_error_and_the_next_request_is_served(
    engine: UpstreamEngine,
    server: ScriptedServer,
    reply: Callable[[], Response],
    error: type[EngineError],
    message: str,
) -> None:
    server.reply = lambda _: reply()
    with pytest.raises(error, match=message) as raised:
        await ask(engine)
    assert type(raised.value) is error
    server.reply = lambda _: says("hello")
    if isinstance(raised.value, EngineBusyError):
        assert raised.value.retry_after_s is not None
        await asyncio.sleep(raised.value.retry_after_s)
    assert (await ask(engine)).text == "hello"


@pytest.mark.parametrize("status", [200, 404, 502])
async def test_what_a_server_says_beyond_its_status_is_logged_and_not_raised(
    engine: UpstreamEngine,
    server: ScriptedServer,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    server.reply = lambda _: PlainTextResponse("<html>at 10.0.0.1" + "x" * 1000, status)
    with pytest.raises(UpstreamError) as raised:
        await ask(engine)
    assert "10.0.0.1" not in str(raised.value)
    (line,) = [
        record.getMessage() for record in caplog.records if "<html>" in record.msg % record.args
    ]
    assert f"{server.http.url}/v1/completions answers status {status}: " in line
    assert "'<html>at 10.0.0.1" in line
    assert len(line) < 500


class TestPause:
    async def test_a_server_without_room_is_left_alone_for_as_long_as_it_says(
        self, engine: UpstreamEngine, server: ScriptedServer
    ) -> None:
        server.reply = lambda _: Response(status_code=429, headers={"Retry-After": "1"})
        for _ in range(3):
            with pytest.raises(EngineBusyError, match="no room") as raised:
                await ask(engine)
            assert raised.value.retry_after_s is not None
            assert 0.5 < raised.value.retry_after_s <= 1
        assert len(server.bodies) == 1
        assert "no room" in engine.stats().problem
        assert engine.stats().available
        server.reply = lambda _: says("hello")
        await until(lambda: not engine.stats().problem)
        assert (await ask(engine)).text == "hello"

    async def test_what_runs_there_goes_on(
        self, engine: UpstreamEngine, server: ScriptedServer
    ) -> None:
        server.reply = lambda _: stream(event([97]), 0.3, event([98], "stop"), usage(0), DONE)
        begun = asyncio.create_task(ask(engine))
        await until(lambda: any(sequence.begun for sequence in engine._live))
        server.reply = lambda _: Response(status_code=503)
        with pytest.raises(EngineUnreadyError):
            await ask(engine)
        assert (await begun).text == "ab"


async def test_tokens_that_came_before_a_failure_are_not_lost(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    server.reply = lambda _: stream(event(list(b"hel")), BrokenPipe)
    tokens: list[int] = []

    async def read() -> None:
        async for chunk in engine.generate(request()):
            tokens.extend(chunk.tokens)

    with pytest.raises(UpstreamError):
        await read()
    assert bytes(tokens) == b"hel"


async def test_a_connection_that_breaks_after_the_last_token_breaks_nothing(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    server.reply = lambda _: stream(event([97], "stop"), BrokenPipe)
    answer = await ask(engine)
    assert (answer.text, answer.finish) == ("a", "stop")


@pytest.mark.parametrize(
    "pieces", [(30.0,), (event([97]), 30.0), (event([97]), *[": ping\n\n", 0.1] * 50)]
)
async def test_silence_is_a_failure(
    make_engine: MakeEngine, server: ScriptedServer, pieces: tuple[Any, ...]
) -> None:
    engine = await make_engine(answer_s=0.5, silence_s=0.5)
    server.reply = lambda _: stream(*pieces)
    began = time.monotonic()
    with pytest.raises(UpstreamError, match="in time"):
        await ask(engine)
    assert time.monotonic() - began < 3


async def test_a_server_without_log_probabilities_gives_no_scores(
    engine: UpstreamEngine, server: ScriptedServer
) -> None:
    server.reply = lambda _: stream(event([97], "stop", logprobs=None), usage(0), DONE)
    with pytest.raises(UpstreamError, match="no log probabilities"):
        await ask(engine, request(score=(1,)))


@pytest.fixture
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "INTERVAL_S", 0.05)
    monkeypatch.setattr(transport, "PING_DEADLINE_S", 0.2)


@pytest.mark.usefixtures("quick_checks")
class TestHealth:
    async def test_an_outage_is_noticed_at_once_and_ends_with_a_new_epoch(
        self, make_engine: MakeEngine, server: ScriptedServer
    ) -> None:
        engine = await make_engine()
        await ask(engine)
        epoch = engine.epoch
        assert engine.cached_prefix(request().prompt)
        await server.http.stop()
        for _ in range(5):
            began = time.monotonic()
            with pytest.raises(UpstreamError, match="away"):
                await ask(engine)
            assert time.monotonic() - began < 1
        assert not engine.stats().available
        await server.http.start()
        await until(lambda: engine.epoch != epoch)
        await until(lambda: engine.stats().available)
        assert engine.cached_prefix(request().prompt) == 0
        assert (await ask(engine)).text == "hello"

    async def test_what_has_not_begun_at_a_server_that_stands_still_is_given_back(
        self, make_engine: MakeEngine, server: ScriptedServer
    ) -> None:
        engine = await make_engine(max_sequences=2, answer_s=60.0)
        server.reply = lambda _: stream(event([97]), 3.0, event([98], "stop"), usage(0), DONE)
        begun = asyncio.create_task(ask(engine))
        await until(lambda: any(sequence.begun for sequence in engine._live))
        server.reply = lambda _: stream(60.0)
        # One waits for its first token, the other one for a place.
        waiting = [asyncio.create_task(ask(engine)) for _ in range(2)]
        await until(lambda: engine.stats().load.waiting)
        server.late = [60.0]
        async with asyncio.timeout(2):
            errors = await asyncio.gather(*waiting, return_exceptions=True)
            # And nothing more is sent there.
            with pytest.raises(UpstreamError, match="in time"):
                await ask(engine)
        assert [type(error) for error in errors] == [UpstreamError] * 2
        assert not engine.stats().available
        assert (await begun).text == "ab"
        server.late, server.reply = [], lambda _: says("hello")
        await until(lambda: engine.stats().available)
        assert (await ask(engine)).text == "hello"

    async def test_a_late_answer_is_no_outage(
        self, make_engine: MakeEngine, server: ScriptedServer
    ) -> None:
        engine = await make_engine()
        server.late = [0.4, 0.0]
        epoch = engine.epoch
        until_s = time.monotonic() + 0.6
        while time.monotonic() < until_s:
            assert (await ask(engine)).text == "hello"
            assert engine.stats().available
        assert len(server.late) == 1
        assert engine.epoch == epoch

    async def test_a_server_that_streams_is_well_however_late_its_health_is(
        self, make_engine: MakeEngine, server: ScriptedServer
    ) -> None:
        engine = await make_engine()
        server.late = [60.0]
        tokens = [piece for _ in range(15) for piece in (event([97]), 0.05)]
        server.reply = lambda _: stream(*tokens, event([97], "stop"), usage(0), DONE)
        streaming = asyncio.create_task(ask(engine))
        while not streaming.done():
            assert engine.stats().available
            await asyncio.sleep(0.02)
        assert len((await streaming).text) == 16

    async def test_tokens_close_the_breaker(
        self, make_engine: MakeEngine, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(health, "INTERVAL_S", 60.0)
        engine = await make_engine()
        tokens = [piece for _ in range(10) for piece in (event([97]), 0.05)]
        server.reply = lambda _: stream(*tokens, event([97], "stop"), usage(0), DONE)
        streaming = asyncio.create_task(ask(engine))
        await until(lambda: any(sequence.begun for sequence in engine._live))
        server.reply = lambda _: PlainTextResponse("boom", 500)
        for _ in range(3):
            with pytest.raises(UpstreamError, match="status 500"):
                await ask(engine)
        server.reply = lambda _: says("hello")
        await asyncio.sleep(0.1)
        assert (await ask(engine)).text == "hello"
        await streaming

    @pytest.mark.parametrize(
        ("other", "problem"),
        [
            ({"shift": 1}, "another tokenizer"),
            ({"models": {"data": []}}, "no model yet"),
            # It is taken for a server with chat completions, which it has not.
            ({"models": {"data": [{"id": "m", "owned_by": "proxy"}]}}, "answer like chat"),
        ],
    )
    async def test_a_server_that_comes_back_as_another_is_away_until_it_is_the_right_one(
        self,
        make_engine: MakeEngine,
        server: ScriptedServer,
        other: dict[str, Any],
        problem: str,
    ) -> None:
        engine = await make_engine()
        await ask(engine)
        right = {name: getattr(server, name) for name in other}
        await server.http.stop()
        with pytest.raises(UpstreamError):
            await ask(engine)
        vars(server).update(other)
        await server.http.start()
        await until(lambda: problem in engine.stats().problem)
        assert not engine.stats().available
        with pytest.raises(EngineError, match=problem):
            await ask(engine)
        status = replica_status("one", engine.stats())
        assert status.health is ReplicaHealth.AWAY
        assert problem in status.reason
        vars(server).update(right)
        await until(lambda: engine.stats().available)
        assert (await ask(engine)).text == "hello"

    async def test_a_server_that_says_that_it_is_not_well_is_away(
        self, make_engine: MakeEngine, server: ScriptedServer
    ) -> None:
        engine = await make_engine()
        await ask(engine)
        server.healthy = False
        await until(lambda: not engine.stats().available)
        with pytest.raises(EngineUnreadyError, match="status 503") as raised:
            await ask(engine)
        assert raised.value.retry_after_s == health.INTERVAL_S
        server.healthy = True
        await until(lambda: engine.stats().available)
        assert (await ask(engine)).text == "hello"

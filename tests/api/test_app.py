"""What the application does around its routes: health, errors, limits."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from plato import __version__
from plato.api import health
from plato.api.answers import sse
from plato.api.app import new_app
from plato.api.questions.body import MAX_BODY_BYTES
from plato.api.service import RunService
from plato.errors import InvalidRequestError, NodeFailedError, OverloadedError
from plato.metrics.table import IGNORED_PARAMETERS, REQUEST_ERRORS_TOTAL
from plato.runs import NodeOutput, RunEvents, RunFailed, RunRequest, RunState
from plato.runtime import Runtime
from plato.settings import Settings
from tests.api.asking import CHAT, QUESTION, RUNS, server_sent, short
from tests.recording import MemoryRecorder
from tests.serving import connect

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")

JSON = {"Content-Type": "application/json"}


class BrokenService:
    """A real service that raises `error`; its streams do at once, or after the first output."""

    def __init__(self, service: RunService, error: Exception, *, begun: bool = False) -> None:
        self._service = service
        self._error = error
        self._begun = begun

    def answer(self, state: RunState) -> AsyncGenerator[RunEvents]:
        return self._break(self._service.answer(state))

    def events(self, request: RunRequest) -> AsyncGenerator[RunEvents]:
        return self._break(self._service.events(request))

    async def open(self, request: RunRequest) -> None:
        raise self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    async def _break(self, whole: AsyncGenerator[RunEvents]) -> AsyncGenerator[RunEvents]:
        async with aclosing(whole):
            async for events in whole:
                if not self._begun:
                    break
                yield events
                if any(isinstance(event, NodeOutput) for event in events):
                    break
            raise self._error


async def test_the_model_is_listed_with_its_modes(http: httpx.AsyncClient) -> None:
    models = (await http.get("/v1/models")).json()["data"]
    names = [model["id"] for model in models]
    assert names == ["tiny", "tiny:plato", "tiny:skeleton", "tiny:sequential"]
    for model in models:
        assert (await http.get(f"/v1/models/{model['id']}")).json() == model
    refused = await http.get("/v1/models/meta/large")
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_server_says_what_it_is_and_allows(
    http: httpx.AsyncClient, runtime: Runtime
) -> None:
    info = (await http.get("/v1/info")).json()
    assert (info["version"], info["model"]) == (__version__, "tiny")
    assert info["models"][0] == "tiny"
    assert info["context_length"] == runtime.service.context_length
    assert info["limits"]["max_nodes"] == runtime.settings.max_nodes
    assert info["defaults"]["sampling"]["temperature"] == 0.0
    assert info["losses"] == []
    assert info["decoders"] == [{"name": name, "state": "ready"} for name in runtime.engines]


async def test_a_runtime_is_alive_and_ready(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert ready.json().keys() == {"status", "decoders", "dtype", "runs"}


@pytest.mark.slow
async def test_a_closed_runtime_is_alive_and_not_ready(tiny_model_folder: str) -> None:
    settings = Settings(model=tiny_model_folder, kv_budget_mb=16)
    async with await Runtime.open(settings) as closed:
        pass
    async with connect(closed.service, settings) as http:
        assert (await http.get("/healthz")).status_code == httpx.codes.OK
        refused = await http.get("/readyz")
    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert refused.json() == {"status": "not ready", "reason": "the engine is shutting down"}


@pytest.mark.parametrize("path", [CHAT, RUNS])
async def test_a_scheduler_of_another_model_is_not_asked(
    path: str, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an application is updated, an ingress can reach schedulers of both models."""
    monkeypatch.setattr(runtime.service, "fingerprint", "another model")
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
    async with connect(runtime.service, runtime.settings) as http:
        refused = await http.post(path, json=body)
    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert "is for the model another model" in refused.json()["error"]["message"]


async def test_a_service_that_does_not_answer_is_not_ready(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "READY_DEADLINE_S", 0.01)
    monkeypatch.setattr(runtime.service, "ready", lambda: asyncio.sleep(5))
    async with connect(runtime.service, runtime.settings) as http:
        refused = await http.get("/readyz")
    assert (refused.status_code, refused.json()["reason"]) == (503, "no response in time")


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/v2/runs", 404, None),
        ("GET", CHAT, 405, {"POST", "HEAD", "OPTIONS"}),
        ("PUT", f"{RUNS}/x", 405, {"GET", "DELETE", "HEAD", "OPTIONS"}),
    ],
)
async def test_an_unknown_path_and_a_wrong_method_are_named(
    http: httpx.AsyncClient, method: str, path: str, status: int, allowed: set[str] | None
) -> None:
    code = {404: "not_found", 405: "method_not_allowed"}[status]
    refused = await http.request(method, path)
    assert refused.status_code == status
    error = refused.json()["error"]
    assert error["message"].startswith(f"{method} {path}: ")
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    allow = refused.headers.get("allow")
    assert (set(allow.split(", ")) if allow else None) == allowed
    for name in allowed or ():
        assert name in error["message"]


@pytest.mark.parametrize("path", [CHAT, RUNS])
async def test_a_body_that_is_too_large_is_refused(http: httpx.AsyncClient, path: str) -> None:
    refused = await http.post(path, content=b" " * (MAX_BODY_BYTES + 1), headers=JSON)
    assert refused.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert refused.json()["error"]["code"] == "request_too_large"
    assert "larger than 4 MiB" in refused.json()["error"]["message"]
    fits = await http.post(path, content=b" " * MAX_BODY_BYTES, headers=JSON)
    assert fits.json()["error"]["code"] == "invalid_json"


async def test_a_client_that_leaves_while_it_asks_is_no_error(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = MemoryRecorder()

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
    await new_app(runtime.service, runtime.settings, recorder)(scope, receive, send)
    assert recorder.totals(REQUEST_ERRORS_TOTAL, "code") == {}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_errors_are_counted_by_their_codes(runtime: Runtime) -> None:
    recorder = MemoryRecorder()
    wordy = [{"role": "user", "content": "word " * 3000}]
    async with connect(runtime.service, runtime.settings, recorder) as http:
        for fields in ({"model": "big"}, {"n": 2}, {"messages": wordy}, {"messages": wordy}):
            assert (await http.post(CHAT, json=short(**fields))).status_code in (400, 404)
        await http.get(f"{RUNS}/none")
    assert recorder.totals(REQUEST_ERRORS_TOTAL, "code") == {
        "model_not_found": 1,
        "unsupported_value": 1,
        "context_length_exceeded": 2,
        "run_not_found": 1,
    }


@pytest.mark.parametrize("path", [CHAT, RUNS])
async def test_ignored_parameters_are_reported_and_counted(runtime: Runtime, path: str) -> None:
    recorder = MemoryRecorder()
    async with connect(runtime.service, runtime.settings, recorder) as http:
        answered = await http.post(path, json=short(verbosity="low", whatever=1))
    assert answered.json()["plato"]["ignored"] == ["verbosity", "whatever"]
    assert recorder.totals(IGNORED_PARAMETERS, "parameter") == {"verbosity": 1, "other": 1}


@pytest.mark.parametrize(
    ("path", "question"),
    [
        (CHAT, {"messages": QUESTION}),
        (RUNS, {"messages": QUESTION}),
        ("/v1/completions", {"prompt": "Why?"}),
        ("/v1/responses", {"input": "Why?"}),
    ],
)
async def test_it_is_said_that_answers_are_stored_all_the_same(
    http: httpx.AsyncClient, path: str, question: dict[str, Any]
) -> None:
    stored = (await http.post(path, json={**question, "stop": ["e"], "store": False})).json()
    assert stored["plato"]["ignored"] == ["store"]


@pytest.mark.parametrize("path", [CHAT, RUNS])
async def test_a_request_without_a_model_gets_the_only_one(
    http: httpx.AsyncClient, path: str
) -> None:
    body = short()
    del body["model"]
    assert (await http.post(path, json=body)).json()["model"] == "tiny"


@pytest.mark.parametrize("path", [CHAT, RUNS])
async def test_a_service_that_refuses_gives_its_error(runtime: Runtime, path: str) -> None:
    recorder = MemoryRecorder()
    broken = BrokenService(runtime.service, OverloadedError("ask later", retry_after_s=1.2))
    async with connect(broken, runtime.settings, recorder) as http:
        refused = await http.post(path, json=short())
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    error = refused.json()["error"]
    assert (error["type"], error["message"]) == ("rate_limit_error", "ask later")
    assert recorder.total(REQUEST_ERRORS_TOTAL, code="overloaded") == 1


async def test_an_error_in_mid_stream_ends_the_stream(runtime: Runtime) -> None:
    recorder = MemoryRecorder()
    broken = BrokenService(runtime.service, NodeFailedError("part 2 failed"), begun=True)
    async with connect(broken, runtime.settings, recorder) as http:
        chat = server_sent(await http.post(CHAT, json=short(stream=True)))
        async with connect(runtime.service, runtime.settings) as whole:
            location = (await whole.post(RUNS, json=short())).headers["location"]
        run = server_sent(await http.get(f"{location}/events"))
    for sent in (chat, run):
        assert len(sent) > 1
        assert json.loads(sent[-1]["data"])["error"]["message"] == "part 2 failed"
    assert run[-1]["event"] == "error"
    assert recorder.total(REQUEST_ERRORS_TOTAL, code="node_failed") == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_details_of_an_unexpected_error_stay_in_the_log(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, *, stream: bool
) -> None:
    recorder = MemoryRecorder()
    broken = BrokenService(runtime.service, KeyError("/etc/secret"), begun=stream)
    async with connect(broken, runtime.settings, recorder) as http:
        response = await http.post(CHAT, json=short(stream=stream))
    assert response.status_code == (200 if stream else 500)
    assert "see the server's log" in response.text
    assert "secret" not in response.text
    assert recorder.total(REQUEST_ERRORS_TOTAL, code="internal_error") == 1
    (logged,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert logged.exc_info is not None
    assert "secret" in str(logged.exc_info[1])
    assert len(vars(logged)["run"]) == 32


@pytest.mark.parametrize("path", [CHAT, RUNS])
@pytest.mark.hostile
async def test_a_body_that_is_announced_as_too_large_is_not_read(
    runtime: Runtime, path: str
) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        raise AssertionError("read")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", b"%d" % (1 << 40)), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    await new_app(runtime.service, runtime.settings)(scope | {"query_string": b""}, receive, send)
    assert sent[0]["status"] == httpx.codes.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "json"])
@pytest.mark.hostile
async def test_a_body_that_is_not_declared_as_json_is_not_read(
    http: httpx.AsyncClient, kind: str
) -> None:
    content = json.dumps(short()).encode()
    refused = await http.post(CHAT, content=content, headers={"Content-Type": kind})
    assert refused.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE
    assert "send Content-Type: application/json" in refused.json()["error"]["message"]
    for accepted in ("Application/JSON; charset=utf-8", "application/vnd.api+json"):
        answered = await http.post(CHAT, content=content, headers={"Content-Type": accepted})
        assert answered.status_code == httpx.codes.OK


async def test_a_compressed_body_is_not_taken_for_broken_json(http: httpx.AsyncClient) -> None:
    content = gzip.compress(json.dumps(short()).encode())
    refused = await http.post(CHAT, content=content, headers={**JSON, "Content-Encoding": "gzip"})
    assert refused.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE
    assert "without Content-Encoding" in refused.json()["error"]["message"]
    plain = {**JSON, "Content-Encoding": "identity"}
    assert (await http.post(CHAT, json=short(), headers=plain)).status_code == httpx.codes.OK


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models"])
@pytest.mark.hostile
async def test_heads_are_answered(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.head(path)).status_code == httpx.codes.OK


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, 400, None),
        ({"logit_bias": {"999999": 1}}, 400, None),
        ({"top_k": 10**9, "repetition_penalty": 1e-9}, 200, None),
    ],
    ids=["too long", "unknown token", "at the bounds"],
)
async def test_a_stream_has_the_status_of_its_error_if_it_cannot_begin(
    http: httpx.AsyncClient, fields: dict[str, Any], status: int, code: str | None
) -> None:
    for mode in ("sequential", "plato", "auto"):
        body = {"model": "tiny", "messages": QUESTION, "max_tokens": 9, "plato": {"mode": mode}}
        body |= fields
        plain, streamed = [
            await http.post(CHAT, json={**body, "stream": stream}) for stream in (False, True)
        ]
        assert (plain.status_code, streamed.status_code) == (status, status)
        if status != httpx.codes.OK:
            assert streamed.json()["error"] == plain.json()["error"]
            assert "part " not in plain.json()["error"]["message"]


async def test_a_stream_that_cannot_begin_leaves_its_run(runtime: Runtime) -> None:
    closed = []

    class Service(BrokenService):
        async def answer(self, state: RunState) -> AsyncGenerator[RunEvents]:
            refused = RunFailed.of(InvalidRequestError("no"), state.request.run_id)
            state.feed(refused)
            try:
                yield (refused,)
                await asyncio.sleep(60)
            finally:
                closed.append(True)

    async with connect(Service(runtime.service, KeyError()), runtime.settings) as http:
        # Without the collector, which closes generators that nobody holds, sooner or later.
        gc.disable()
        try:
            refused = await http.post(CHAT, json=short(stream=True))
            assert closed == [True]
        finally:
            gc.enable()
    assert refused.status_code == httpx.codes.BAD_REQUEST


class SlowService(BrokenService):
    """One that is silent at first, for longer than pings are apart, and then answers or refuses."""

    async def _break(self, whole: AsyncGenerator[RunEvents]) -> AsyncGenerator[RunEvents]:
        await asyncio.sleep(0.5)
        batches = whole if self._begun else super()._break(whole)
        async with aclosing(batches):
            async for events in batches:
                yield events


@pytest.mark.hostile
async def test_a_stream_that_waits_sends_pings(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "PING_S", 0.05)
    settings = runtime.settings.model_copy(update={"patience_s": 0.1})
    slow = SlowService(runtime.service, KeyError(), begun=True)
    async with connect(slow, settings) as http:
        text = (await http.post(CHAT, json=short(stream=True))).text
    assert text.count(": ping") >= 3
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.hostile
async def test_a_question_that_waited_for_admission_is_refused_with_a_status(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "PING_S", 0.05)
    slow = SlowService(runtime.service, OverloadedError("many", retry_after_s=3.0))
    async with connect(slow, runtime.settings) as http:
        refused = await http.post(CHAT, json=short(stream=True))
    assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
    assert refused.headers["retry-after"] == "3"

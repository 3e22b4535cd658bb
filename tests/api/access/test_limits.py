"""Requests and streams in progress are bounded by tenant and in all; health is outside of that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from plato.api.app import new_app
from plato.runtime import Runtime
from tests.api.asking import CHAT, RUNS, long, short
from tests.serving import serving

# One event loop for all tests of the API: the model is loaded once.
pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.hostile]


@asynccontextmanager
async def limited(runtime: Runtime, **limits: object) -> AsyncIterator[httpx.AsyncClient]:
    settings = runtime.settings.model_copy(update=limits)
    async with (
        serving(runtime.service, settings) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as http,
    ):
        yield http


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_tenant_has_so_many_requests_and_others_have_theirs(runtime: Runtime) -> None:
    async with limited(runtime, max_tenant_requests=2) as http, AsyncExitStack() as streams:
        for _ in range(2):
            stream = http.stream("POST", CHAT, json=long(stream=True), headers=key("loud"))
            assert (await streams.enter_async_context(stream)).status_code == httpx.codes.OK
        for path in (CHAT, RUNS):
            refused = await http.post(path, json=short(), headers=key("loud"))
            assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
            assert refused.headers["retry-after"] == "1"
            error = refused.json()["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
            assert error["message"].startswith("2 requests of this API key are in progress; wait")
        assert (await http.post(CHAT, json=short(), headers=key("quiet"))).is_success
        await streams.aclose()
        await until(lambda: not len(runtime.scheduler.runs))
        assert (await http.post(CHAT, json=short(), headers=key("loud"))).is_success


async def test_a_tenant_with_all_its_runs_is_refused_before_its_question_is_parsed(
    runtime: Runtime,
) -> None:
    async with limited(runtime, max_tenant_runs=1) as http:
        async with http.stream("POST", CHAT, json=long(stream=True), headers=key("loud")):
            for body in (json.dumps(short()), "{"):
                headers = {"Content-Type": "application/json", **key("loud")}
                refused = await http.post(CHAT, content=body, headers=headers)
                assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
                assert refused.headers["retry-after"] == "1"
                message = refused.json()["error"]["message"]
                assert message.startswith("1 answers of this API key are in progress")
            assert (await http.get(RUNS, headers=key("loud"))).is_success
        await until(lambda: not len(runtime.scheduler.runs))
        assert (await http.post(CHAT, json=short(), headers=key("loud"))).is_success


async def test_health_is_answered_when_every_slot_is_taken(runtime: Runtime) -> None:
    stream = {"json": long(stream=True), "headers": key("loud")}
    async with (
        limited(runtime, max_requests=1) as http,
        http.stream("POST", CHAT, **stream),  # type: ignore[arg-type]
    ):
        refused = await http.post(CHAT, json=short(), headers=key("other"))
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert refused.headers["retry-after"] == "1"
        for path in ("/healthz", "/readyz", "/v1/models"):
            assert (await http.get(path)).is_success


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_run_followers": 2}, "2 event streams of this run are open"),
        ({"max_tenant_followers": 2}, "2 event streams of this API key are open"),
    ],
    ids=["run", "tenant"],
)
async def test_followers_are_bounded_and_keep_no_question_out(
    runtime: Runtime, limits: dict[str, int], says: str
) -> None:
    async with limited(runtime, max_tenant_requests=1, **limits) as http:
        location = (await http.post(RUNS, json=long())).headers["location"]
        async with AsyncExitStack() as streams:
            for _ in range(2):
                stream = http.stream("GET", f"{location}/events")
                assert (await streams.enter_async_context(stream)).is_success
            refused = await http.get(f"{location}/events")
            assert refused.status_code == httpx.codes.TOO_MANY_REQUESTS
            message = refused.json()["error"]["message"]
            assert message == f"{says}; close one of them, or poll GET /v1/runs/{{id}}"
            assert (await http.get(location)).json()["status"] == "running"
            assert (await http.post(CHAT, json=short())).is_success
        assert (await http.delete(location)).json()["status"] == "cancelled"
        assert (await http.get(f"{location}/events")).is_success


async def test_a_stream_that_nobody_reads_is_cancelled(runtime: Runtime) -> None:
    """A client whose connection is full, from its third message on."""
    settings = runtime.settings.model_copy(
        update={"write_deadline_s": 0.2, "max_tenant_requests": 1}
    )
    app, sent = new_app(runtime.service, settings), 0
    body = json.dumps(long(stream=True)).encode()
    messages = [{"type": "http.request", "body": body}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.sleep(60)
        return messages.pop()

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == 3:
            assert len(runtime.scheduler.runs) == 1
            await asyncio.sleep(60)

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
    async with asyncio.timeout(30):
        await app(scope, receive, send)
        await until(lambda: not len(runtime.scheduler.runs))
    # Its slot is free again.
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://plato") as http:
        assert (await http.post(CHAT, json=short())).is_success

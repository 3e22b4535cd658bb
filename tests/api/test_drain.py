"""A server that stops: no new questions, answers end, or get an error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from plato.api.app import new_app
from plato.api.drain import Drain
from plato.runtime import Runtime
from tests.api.asking import CHAT, RUNS, chunks_of, long, server_sent, short, text_of

pytestmark = pytest.mark.asyncio(loop_scope="package")

STOPPED = "the server stopped before the end of the answer"


@pytest.fixture
def drain() -> Drain:
    return Drain()


@pytest_asyncio.fixture(loop_scope="package")
async def http(runtime: Runtime, drain: Drain) -> AsyncIterator[httpx.AsyncClient]:
    app = new_app(runtime.service, runtime.settings, drain=drain)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://plato") as client:
        yield client


async def begun(runtime: Runtime) -> None:
    """Wait until a run has text."""
    async with asyncio.timeout(10):
        while not any(run.state.text for run in runtime.scheduler.runs._runs.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_idle_server_stops_at_once_and_refuses_what_comes(
    http: httpx.AsyncClient, drain: Drain
) -> None:
    began = time.monotonic()
    await drain.finish(20.0)
    assert time.monotonic() - began < 1.0
    for path, body in ((CHAT, short()), (CHAT, short(stream=True)), (RUNS, short())):
        refused = await http.post(path, json=body)
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert "the server is stopping" in refused.json()["error"]["message"]
    unready = await http.get("/readyz")
    assert unready.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert "stopping" in unready.json()["reason"]
    assert (await http.get("/healthz")).status_code == httpx.codes.OK


@pytest.mark.parametrize("stream", [True, False])
async def test_answers_that_have_begun_are_finished(
    http: httpx.AsyncClient, runtime: Runtime, drain: Drain, stream: bool
) -> None:
    asking = asyncio.create_task(http.post(CHAT, json=long(stream=stream, max_tokens=200)))
    await begun(runtime)
    await drain.finish(20.0)
    answer = await asking
    if stream:
        assert chunks_of(answer)[-1]["choices"][0]["finish_reason"] == "length"
    else:
        assert answer.json()["usage"]["completion_tokens"] == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_answers_that_take_too_long_end_in_an_error(
    http: httpx.AsyncClient, runtime: Runtime, drain: Drain, stream: bool
) -> None:
    asking = asyncio.create_task(http.post(CHAT, json=long(stream=stream)))
    await begun(runtime)
    began = time.monotonic()
    await drain.finish(0.3)
    assert time.monotonic() - began < 2.0
    answer = await asking
    assert STOPPED in answer.text
    if stream:
        assert server_sent(answer)[-1]["data"].startswith('{"error":')
    else:
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
    # Nobody gets the rest of it.
    assert len(runtime.scheduler.runs) == 0


async def test_followers_are_told_and_the_run_goes_on(
    http: httpx.AsyncClient, runtime: Runtime, drain: Drain
) -> None:
    run = (await http.post(RUNS, json=long())).json()["id"]
    following = asyncio.create_task(http.get(f"{RUNS}/{run}/events"))
    await begun(runtime)
    await drain.finish(0.3)
    last = server_sent(await following)[-1]
    assert last["event"] == "error"
    assert STOPPED in last["data"]
    assert (await http.get(f"{RUNS}/{run}")).json()["status"] == "running"
    assert (await http.delete(f"{RUNS}/{run}")).json()["status"] == "cancelled"


async def test_an_impatient_operator_cuts_answers_off(
    http: httpx.AsyncClient, runtime: Runtime, drain: Drain
) -> None:
    asking = asyncio.create_task(http.post(CHAT, json=long(stream=True)))
    await begun(runtime)
    stopping = asyncio.create_task(drain.finish(60.0))
    await asyncio.sleep(0.1)
    drain.cut_off()
    await asyncio.wait_for(stopping, 30)
    assert STOPPED in (await asking).text


async def test_what_is_not_stopping_is_not_disturbed(http: httpx.AsyncClient) -> None:
    assert text_of(chunks_of(await http.post(CHAT, json=short(stream=True))))

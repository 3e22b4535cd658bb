"""Streams of responses in the background that cannot be followed to their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from openai.types.responses import ResponseErrorEvent

from plato.api.app import new_app
from plato.api.drain import Drain
from plato.errors import SlowConsumerError
from plato.runs import RunEvents, RunRequest
from plato.runtime import Runtime
from tests.api.responses.test_routes import LONG, PATH, asked, events_of, text_of
from tests.api.test_app import BrokenService
from tests.serving import connect

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")

ASKED = asked(background=True)
SLOWLY = asked(background=True, max_output_tokens=1500, plato=LONG)
ERROR = SlowConsumerError("too slow")


async def followed(http: httpx.AsyncClient, response: str, **params: Any) -> list[dict[str, Any]]:
    return events_of(await http.get(f"{PATH}/{response}", params={"stream": "true", **params}))


class CutService(BrokenService):
    """A real service whose streams break off behind each number of events in turn."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.most = 0

    async def open(self, request: RunRequest) -> None:
        await self._service.open(request)

    async def _break(self, whole: AsyncGenerator[RunEvents]) -> AsyncGenerator[RunEvents]:
        self.most += 1
        left = self.most
        async with aclosing(whole):
            async for events in whole:
                yield events[:left]
                left -= len(events[:left])
                if not left:
                    raise ERROR


async def test_who_resumes_behind_the_error_misses_nothing(runtime: Runtime) -> None:
    async with connect(runtime.service, runtime.settings) as http:
        response = (await http.post(PATH, json=ASKED)).json()["id"]
        whole = await followed(http, response)
    cut = CutService(runtime.service, ERROR)
    seen: list[dict[str, Any]] = []
    after: dict[str, int] = {}
    async with connect(cut, runtime.settings) as http:
        async with asyncio.timeout(20):
            while not seen or seen[-1]["type"] != whole[-1]["type"]:
                *events, last = await followed(http, response, **after)
                if last["type"] == "error":
                    ResponseErrorEvent.model_validate(last, strict=True)
                    assert (last["code"], last["message"]) == ("slow_consumer", "too slow")
                    after = {"starting_after": last["sequence_number"]}
                else:
                    events.append(last)
                seen += events
    assert cut.most > 3
    assert text_of(seen) == text_of(whole)
    assert [event["type"] for event in seen if "delta" not in event] == [
        event["type"] for event in whole if "delta" not in event
    ]


async def test_the_error_comes_wherever_the_client_resumes(runtime: Runtime) -> None:
    async with connect(runtime.service, runtime.settings) as http:
        response = (await http.post(PATH, json=ASKED)).json()["id"]
    async with connect(BrokenService(runtime.service, ERROR), runtime.settings) as http:
        (error,) = await followed(http, response, starting_after=10**6)
    assert (error["type"], error["sequence_number"]) == ("error", 10**6)


async def test_a_response_outlives_the_server_that_streams_it(runtime: Runtime) -> None:
    drain = Drain()
    app = new_app(runtime.service, runtime.settings, drain=drain)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://plato") as http:
        response = (await http.post(PATH, json=SLOWLY)).json()["id"]
        following = asyncio.create_task(followed(http, response))
        await drain.finish(0.3)
        last = (await following)[-1]
        assert last["type"] == "error"
        assert "the server stopped" in last["message"]
        assert (await http.get(f"{PATH}/{response}")).json()["status"] == "in_progress"
        assert (await http.post(f"{PATH}/{response}/cancel")).json()["status"] == "cancelled"


async def test_an_answer_that_fails_is_a_failed_response(runtime: Runtime) -> None:
    async with connect(runtime.service, runtime.settings) as http:
        response = (await http.post(PATH, json=SLOWLY)).json()["id"]
        await http.post(f"{PATH}/{response}/cancel")
        assert (await followed(http, response))[-1]["type"] == "response.failed"

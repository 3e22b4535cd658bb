"""A body has a deadline, and those that come slowly make room for others."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from plato.api.app import new_app
from plato.api.questions.body import BodyReader
from plato.errors import BodyTimeoutError
from plato.runtime import Runtime
from tests.api.asking import CHAT, RUNS

# One event loop for all tests of the API: the model is loaded once.
pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.hostile]

PIECE = b" " * (32 << 10)
LAST = object()


class Upload:
    """The request of a client that sends its body in pieces, when it wants."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, piece: Any) -> None:
        self._pieces.put_nowait(piece)

    async def receive(self) -> dict[str, Any]:
        piece = await self._pieces.get()
        last = piece is LAST
        return {"type": "http.request", "body": b"" if last else piece, "more_body": not last}

    def read_by(self, reader: BodyReader) -> asyncio.Task[bytes]:
        scope = {"type": "http", "method": "POST", "path": CHAT, "headers": []}
        return asyncio.create_task(reader.read(Request(scope, self.receive)))


async def refused(reading: asyncio.Task[bytes]) -> bool:
    try:
        async with asyncio.timeout(30):
            await reading
    except BodyTimeoutError:
        return True
    return False


@pytest.mark.parametrize("path", [CHAT, RUNS])
async def test_half_a_body_is_refused_after_its_deadline(runtime: Runtime, path: str) -> None:
    upload, sent = Upload(), []
    upload.send(b'{"model": "tiny"')

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    settings = runtime.settings.model_copy(update={"body_deadline_s": 0.1})
    async with asyncio.timeout(30):
        await new_app(runtime.service, settings)(scope, upload.receive, send)
    assert sent[0]["status"] == httpx.codes.REQUEST_TIMEOUT
    # The rest of the body would be taken for the next request.
    assert (b"connection", b"close") in sent[0]["headers"]
    assert b"send all of it at once" in sent[1]["body"]


async def test_what_has_come_extends_the_deadline() -> None:
    upload = Upload()
    reading = upload.read_by(BodyReader(0.3))
    for _ in range(4):
        upload.send(PIECE)
        await asyncio.sleep(0.2)
    upload.send(LAST)
    assert await reading == 4 * PIECE


async def test_a_trickle_does_not() -> None:
    upload = Upload()
    reading = upload.read_by(BodyReader(0.3))
    for _ in range(20):
        upload.send(b" ")
        await asyncio.sleep(0.05)
    assert await refused(reading)


async def test_of_too_many_bodies_the_first_is_given_up() -> None:
    reader = BodyReader(60, max_uploads=2)
    uploads = [Upload() for _ in range(3)]
    readings = [upload.read_by(reader) for upload in uploads]
    assert await refused(readings[0])
    for upload in uploads[1:]:
        upload.send(LAST)
    assert [await reading for reading in readings[1:]] == [b"", b""]


async def test_of_bodies_that_are_too_large_together_the_first_is_given_up() -> None:
    reader = BodyReader(60, max_upload_bytes=2 * len(PIECE))
    first, second = Upload(), Upload()
    readings = [upload.read_by(reader) for upload in (first, second)]
    first.send(PIECE)
    second.send(PIECE)
    second.send(PIECE)
    assert await refused(readings[0])
    second.send(LAST)
    assert await readings[1] == 2 * PIECE


async def test_what_still_comes_of_a_body_that_was_given_up_does_not_count() -> None:
    reader = BodyReader(60, max_upload_bytes=2 * len(PIECE))
    first, second, third = Upload(), Upload(), Upload()
    readings = [upload.read_by(reader) for upload in (first, second)]
    first.send(PIECE)
    await asyncio.sleep(0.01)
    # The second one is read first, and ends the first one while its piece is there.
    second.send(2 * PIECE)
    second.send(LAST)
    first.send(PIECE)
    assert await refused(readings[0])
    assert await readings[1] == 2 * PIECE
    third.send(2 * PIECE)
    third.send(LAST)
    assert not await refused(third.read_by(reader))


async def test_bodies_that_have_come_leave_room() -> None:
    reader = BodyReader(60, max_uploads=1, max_upload_bytes=len(PIECE))
    for _ in range(3):
        upload = Upload()
        upload.send(PIECE)
        upload.send(LAST)
        assert await upload.read_by(reader) == PIECE

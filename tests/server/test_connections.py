"""Connections whose client is slow are closed; those of others are left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from plato.server import connections
from plato.server.connections import MAX_HEADER_BYTES, bounded_protocol

pytestmark = pytest.mark.hostile

DEADLINE_S = 0.3
REQUEST = b"POST / HTTP/1.1\r\nHost: plato\r\nContent-Length: 4\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def headers_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADERS_DEADLINE_S", DEADLINE_S)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body."""
    body = b""
    more = True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def connected(app: Any = echo, write_deadline_s: float = 60) -> AsyncIterator[Connection]:
    """A connection to a server on a free port."""
    protocol = bounded_protocol(write_deadline_s)
    config = uvicorn.Config(app, http=protocol, port=0, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        server.should_exit = True
        await task


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection without an answer, within a second."""
    try:
        async with asyncio.timeout(DEADLINE_S + 1):
            return await reader.read() == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


async def answered(connection: Connection, *, pause_s: float = 0) -> bool:
    """Whether a request is answered whose body comes after a pause."""
    reader, writer = connection
    writer.write(REQUEST)
    await asyncio.sleep(pause_s)
    writer.write(b"body")
    async with asyncio.timeout(30):
        return (await reader.readuntil(b"body\r\n0\r\n\r\n")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", REQUEST[:20]], ids=["nothing", "half of its headers"])
async def test_a_connection_that_sends_no_request_is_closed(sent: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(sent)
        assert await closed(reader)


async def test_headers_that_drip_are_not_waited_for() -> None:
    async with connected() as (reader, writer):
        dripping = asyncio.create_task(_drip(writer))
        assert await closed(reader)
        dripping.cancel()


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(REQUEST[:20])
    while True:
        writer.write(b"a: b\r\n")
        await asyncio.sleep(0.05)


async def test_headers_without_end_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEADERS_DEADLINE_S", 60)
    async with connected() as (reader, writer):
        writer.write(REQUEST[:20] + b"a: " + MAX_HEADER_BYTES * b"b")
        assert await closed(reader)


async def test_a_connection_is_kept_between_requests_and_while_a_body_comes() -> None:
    async with connected() as connection:
        for _ in range(2):
            assert await answered(connection, pause_s=1.5 * DEADLINE_S)
            await asyncio.sleep(1.5 * DEADLINE_S)


async def test_the_headers_of_a_later_request_have_a_deadline_too() -> None:
    async with connected() as (reader, writer):
        assert await answered((reader, writer))
        writer.write(REQUEST[:20])
        assert await closed(reader)


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Answers without reading the body."""
    await send({"type": "http.response.start", "status": 413, "headers": []})
    await send({"type": "http.response.body", "body": b"body"})


async def test_the_rest_of_a_body_that_was_refused_is_received() -> None:
    size = 8 << 20
    async with connected(refuse) as (reader, writer):
        writer.write(REQUEST.replace(b"Length: 4", b"Length: %d" % size))
        writer.write(bytes(size))
        await writer.drain()
        async with asyncio.timeout(30):
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413")


async def test_but_not_for_ever() -> None:
    async with connected(refuse) as (reader, writer):
        writer.write(REQUEST.replace(b"Length: 4", b"Length: 1000"))
        async with asyncio.timeout(30):
            await reader.readuntil(b"body\r\n0\r\n\r\n")
        dripping = asyncio.create_task(_drip(writer))
        assert await closed(reader)
        dripping.cancel()


async def test_a_response_that_nobody_reads_ends_with_its_connection() -> None:
    left = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not left.is_set():
            await send({"type": "http.response.body", "body": 65536 * b" ", "more_body": True})
            try:
                async with asyncio.timeout(0.001):
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    left.set()
            except TimeoutError:
                pass

    async with connected(endless, write_deadline_s=DEADLINE_S) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(REQUEST + b"body")
        async with asyncio.timeout(30):
            await left.wait()


async def test_a_response_that_is_read_slowly_goes_on() -> None:
    size = 16 << 20

    async def large(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(size >> 20):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        await send({"type": "http.response.body"})

    async with connected(large, write_deadline_s=DEADLINE_S) as (reader, writer):
        writer.write(REQUEST + b"body")
        received = 0
        async with asyncio.timeout(10):
            while received < size:
                received += len(await reader.read(4 << 20))
                await asyncio.sleep(0.01)

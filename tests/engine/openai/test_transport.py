"""Connections to a server: whose they are, what is kept of them, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from plato.engine import UpstreamError
from plato.engine.openai import response as response_module
from plato.engine.openai.response import MAX_RETRY_S
from plato.engine.openai.transport import UpstreamTransport
from tests.engine.waiting import until

STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
END = b"0\r\n\r\n"
DEADLINE_S = 5.0

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass
class Server:
    """Answers every request with what `reply` writes."""

    reply: Reply
    url: str = ""
    heads: list[bytes] = field(default_factory=list)
    """Of the requests, in lower case."""
    connections: int = 0
    ended: int = 0
    """Connections that the client has closed."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
                await self.reply(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended += 1
        finally:
            writer.close()


@asynccontextmanager
async def served(reply: Reply) -> AsyncIterator[tuple[Server, UpstreamTransport]]:
    """A server, and a transport to it."""
    server = Server(reply)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        server.url = f"http://{host}:{port}"
        transport = UpstreamTransport(server.url, "key", max_connections=4, connect_s=DEADLINE_S)
        try:
            yield server, transport
        finally:
            await transport.close()


async def get(transport: UpstreamTransport, method: str = "GET", **content: object) -> bytes:
    """The body of a response that is read to its end."""
    response = await transport.send(method, "/", deadline_s=DEADLINE_S, **content)
    try:
        return await response.read_all(DEADLINE_S)
    finally:
        response.close()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("Fri, 02 Jan 1970 00:00:00 GMT", 0),
        # Not for ever, and nothing that no number can hold.
        ("Fri, 01 Jan 2100 00:00:00 GMT", MAX_RETRY_S),
        ("9" * 400, MAX_RETRY_S),
    ],
)
async def test_the_time_after_which_to_ask_again_is_read(header: str, seconds: float) -> None:
    assert await retry_after_s(header) == seconds


async def test_a_date_is_a_time_from_now() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    found = await retry_after_s(at)
    assert found is not None
    assert 90 < found <= 100


@pytest.mark.parametrize("header", ["", "soon", "-1", "7.5"])
async def test_a_time_that_cannot_be_read_is_none(header: str) -> None:
    assert await retry_after_s(header) is None


async def retry_after_s(header: str) -> float | None:
    """As it is read from a response with this header."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 503 No\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()

    async with served(reply) as (_, transport):
        response = await transport.send("GET", "/", deadline_s=DEADLINE_S)
        response.close()
        return response.retry_after_s


async def says_hello(writer: asyncio.StreamWriter) -> None:
    cookie = b"Set-Cookie: who=one; Path=/\r\n\r\n"
    writer.write(STREAM + cookie + chunk(b"hel"))
    await writer.drain()
    await asyncio.sleep(0.01)
    writer.write(chunk(b"lo") + END)


async def test_a_connection_is_kept_and_one_caller_is_not_taken_for_another() -> None:
    async with served(says_hello) as (server, transport):
        for _ in range(3):
            assert await get(transport) == b"hello"
    assert server.connections == 1
    for head in server.heads:
        assert b"authorization: bearer key\r\n" in head
        assert b"accept-encoding: identity\r\n" in head
        assert b"cookie" not in head


async def test_the_key_does_not_follow_a_redirect() -> None:
    async def redirects(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 307 Go\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n")

    async with served(redirects) as (server, transport):
        response = await transport.send("GET", "/", deadline_s=DEADLINE_S)
        response.close()
    assert response.status == 307
    assert len(server.heads) == 1


@pytest.mark.parametrize("begun", [b"", chunk(b"a")], ids=["its beginning", "mid-stream"])
async def test_closing_a_response_cancels_what_is_left_of_it(begun: bytes) -> None:
    async def holds(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + b"\r\n" + begun)

    async with served(holds) as (server, transport):
        response = await transport.send("GET", "/", deadline_s=DEADLINE_S)
        if begun:
            assert await response.read() == b"a"
        response.close()
        await until(lambda: server.ended == 1)


@pytest.mark.parametrize(
    "nonsense",
    [b"no length\r\n", b"2\r\nthree\r\n", b"HTTP/1.1 502 Bad Gateway\r\n\r\n"],
    ids=["no chunk", "a longer chunk", "a response"],
)
async def test_nonsense_in_mid_stream_is_told_at_once(nonsense: bytes) -> None:
    """Also on a connection that had other responses before."""

    async def breaks(writer: asyncio.StreamWriter) -> None:
        await says_hello(writer)
        server.reply = talks_nonsense

    async def talks_nonsense(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + b"\r\n" + chunk(b"a"))
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(nonsense)

    async with served(breaks) as (server, transport):
        assert await get(transport) == b"hello"
        response = await transport.send("GET", "/", deadline_s=DEADLINE_S)
        with pytest.raises(UpstreamError, match="away"):
            await response.read_all(DEADLINE_S)
        response.close()
        assert server.connections == 1
        assert transport.outages == 1


async def test_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_module, "MAX_ANSWER_BYTES", 4)
    async with served(says_hello) as (_, transport):
        with pytest.raises(UpstreamError, match="longer than 4 bytes"):
            await get(transport)


async def test_errors_do_not_tell_where_the_server_is() -> None:
    async with served(says_hello) as (server, transport):
        pass
    transport = UpstreamTransport(server.url, None, max_connections=4, connect_s=DEADLINE_S)
    with pytest.raises(UpstreamError, match="away") as raised:
        await get(transport)
    assert "127.0.0.1" not in str(raised.value)
    await transport.close()


async def test_a_connection_that_the_server_closes_as_it_is_used_again_costs_no_request() -> None:
    answered: set[asyncio.StreamWriter] = set()

    async def once(writer: asyncio.StreamWriter) -> None:
        if writer in answered:
            raise ConnectionError
        answered.add(writer)
        await says_hello(writer)

    async with served(once) as (server, transport):
        for _ in range(3):
            assert await get(transport, "POST", data=b"") == b"hello"
        assert (server.connections, len(server.heads)) == (3, 5)
        assert transport.outages == 0


async def test_a_server_that_closes_new_connections_is_away() -> None:
    async def never(writer: asyncio.StreamWriter) -> None:
        raise ConnectionError

    # A GET aiohttp sends again by itself.
    async with served(never) as (server, transport):
        with pytest.raises(UpstreamError, match="away"):
            await get(transport, "POST", data=b"")
        assert len(server.heads) == 1

"""Where a server listens."""

from __future__ import annotations

import asyncio
import socket

import pytest

from plato.errors import SettingsError
from plato.server.options import ServeOptions
from plato.settings import Settings


def at(port: int, host: str = "127.0.0.1") -> ServeOptions:
    return ServeOptions(Settings(), host, port)


def test_an_address_of_ipv6_has_brackets_in_the_url() -> None:
    assert at(81, "::1").url == "http://[::1]:81"


def test_a_port_in_use_is_refused_even_if_its_server_would_share_it() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port}.*--port"):
            at(port).bind()
    at(port).bind().close()


async def test_answers_on_kept_connections_do_not_wait_for_acknowledgements() -> None:
    sent_at_once: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        sent_at_once.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = at(0).bind()
    async with await asyncio.start_server(connected, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        async with asyncio.timeout(10):
            assert await sent_at_once
        writer.close()


def test_a_host_that_is_not_of_this_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1"):
        at(0, "192.0.2.1").bind()

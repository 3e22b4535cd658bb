"""What `plato serve` is told, and refuses."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import pytest

from plato.errors import SettingsError
from plato.server.options import ServeOptions


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_:
        ServeOptions.parse(arguments)
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_the_options_and_settings_of_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATO_PLANNERS", "3")
    options = ServeOptions.parse(["--port", "81", "--embedded", "decoders=2", "max_nodes=4"])
    assert (options.url, options.embedded) == ("http://127.0.0.1:81", True)
    settings = options.settings
    assert (settings.decoders, settings.max_nodes, settings.planners) == (2, 4, 3)


def test_the_engine_and_its_upstreams_are_options() -> None:
    urls = ["--upstream", "http://one:8000/v1", "--upstream", "http://two:8000"]
    options = ServeOptions.parse(["--engine", "openai", *urls, "--model", "some/model"])
    settings = options.settings
    assert (settings.engine, settings.model) == ("openai", "some/model")
    assert settings.upstreams == ("http://one:8000", "http://two:8000")


def test_an_address_of_ipv6_has_brackets_in_the_url() -> None:
    options = ServeOptions.parse(["--host", "::1", "--port", "81"])
    assert options.url == "http://[::1]:81"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["decoder=2"], "there is no setting decoder; did you mean decoders?"),
        (["zzz=2"], "there is no setting zzz"),
        (["max_nodes=1"], "max_nodes is invalid: Input should be greater than or equal to 2"),
        (["decoders=3", "max_decoders=2"], "max_decoders is 2, less than decoders (3)"),
        (["decoders"], "'decoders' is not a setting; write key=value"),
        (["--embedded", "--metrics-port", "9"], "at /metrics"),
        (["--embedded", "--open-metrics"], "--open-metrics is for Ray"),
        (["--engine", "openai"], "add --upstream URL"),
        (["--upstream", "http://one:8000"], "add --engine openai"),
        (["--engine", "openai", "--upstream", "one:8000"], "'one:8000' is no URL"),
        (["--model", "one", "model=two"], "model is given as an option and as model=..."),
        (["--port", "x"], "argument --port: invalid int value: 'x'"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = refused(arguments, capsys)
    assert named in shown.splitlines()[-1]
    assert "pydantic" not in shown


def test_a_port_in_use_is_refused_even_if_its_server_would_share_it() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port}.*--port"):
            ServeOptions.parse(["--port", str(port)]).bind()
    ServeOptions.parse(["--port", str(port)]).bind().close()


async def test_answers_on_kept_connections_do_not_wait_for_acknowledgements() -> None:
    sent_at_once: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        sent_at_once.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = ServeOptions.parse(["--port", "0"]).bind()
    async with await asyncio.start_server(connected, sock=listener):
        _, writer = await asyncio.open_connection(*listener.getsockname())
        async with asyncio.timeout(10):
            assert await sent_at_once
        writer.close()


def test_a_host_that_is_not_of_this_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1"):
        ServeOptions.parse(["--host", "192.0.2.1", "--allow-anonymous", "--port", "0"]).bind()


@pytest.mark.hostile
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "plato.example.org"])
def test_other_machines_are_not_answered_without_keys(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"everybody who reaches {host} could ask" in refused(["--host", host], capsys)
    for allowed in ("--allow-anonymous", "api_keys=shop=0123456789abcdef", "tenant_header=X-T"):
        assert ServeOptions.parse(["--host", host, allowed]).host == host


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine_is_answered_without_keys(host: str) -> None:
    options = ServeOptions.parse(["--host", host])
    assert options.host == host
    assert urlsplit(options.url).netloc.removesuffix(":8000") in options.settings.allowed_hosts


@pytest.mark.hostile
def test_without_keys_a_server_on_loopback_has_only_the_names_of_this_machine() -> None:
    names = {"localhost", "*.localhost", "127.0.0.1", "[::1]"}
    assert set(ServeOptions.parse([]).settings.allowed_hosts) == names
    for protected in ("--allow-anonymous", "api_keys=shop=0123456789abcdef", "tenant_header=X-T"):
        assert ServeOptions.parse([protected]).settings.allowed_hosts == ()
    named = ServeOptions.parse(["allowed_hosts=localhost,host.docker.internal"]).settings
    assert named.allowed_hosts == ("localhost", "host.docker.internal")


def test_keys_that_cannot_be_read_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert "/nowhere" in refused(["api_keys_file=/nowhere"], capsys)
    assert "less than 16 characters" in refused(["api_keys=shop=x"], capsys)

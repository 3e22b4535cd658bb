"""What `plato serve` is told, and refuses."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from plato.cli.serve import serve
from plato.server.options import ServeOptions
from plato.settings import Settings, section_of
from tests.cli.running import plato, refused

OTHERS = "api_keys=shop=0123456789abcdef"


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Reads a command line, and gives the options that a server would start with."""
    started: list[tuple[ServeOptions, bool]] = []

    def start(options: ServeOptions, *, embedded: bool) -> int:
        started.append((options, embedded))
        return 0

    monkeypatch.setitem(serve.__globals__, "run", start)

    def parse_arguments(*arguments: str) -> ServeOptions:
        result = plato("serve", *arguments)
        assert result.exit_code == 0, result.stderr
        options, embedded = started.pop()
        assert embedded == ("--embedded" in arguments)
        return options

    return parse_arguments


def test_flags_arguments_and_variables_are_settings(
    parse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLATO_PLANNERS", "3")
    options = parse("some/model", "--port", "81", "--embedded", "decoders=2", "--max-nodes", "4")
    assert options.url == "http://127.0.0.1:81"
    settings = options.settings
    assert (settings.model, settings.decoders, settings.max_nodes) == ("some/model", 2, 4)
    assert settings.planners == 3


def test_values_of_every_kind_are_read(parse: Any) -> None:
    settings = parse(
        *("--engine-options", '{"pace": 2}', "--move-cost", "null", "--dtype", "float32"),
        *("--upstream-priority", "--cors-origins", "http://a,http://b", "--temperature", "0.5"),
    ).settings
    assert settings.engine_options == {"pace": 2}
    assert (settings.move_cost, settings.dtype, settings.temperature) == (None, "float32", 0.5)
    assert settings.upstream_priority is True
    assert settings.cors_origins == ("http://a", "http://b")


def test_a_file_is_below_variables_and_flags(
    parse: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plato.toml"
    file.write_text('planners = 2\nschedulers = 2\ndecoders = 2\ncors_origins = ["http://a"]\n')
    monkeypatch.setenv("PLATO_SCHEDULERS", "3")
    monkeypatch.setenv("PLATO_DECODERS", "3")
    settings = parse("--config", str(file), "--decoders", "4").settings
    assert (settings.planners, settings.schedulers, settings.decoders) == (2, 3, 4)
    assert settings.cors_origins == ("http://a",)


def test_upstreams_can_be_repeated(parse: Any) -> None:
    urls = ("--upstream", "http://one:8000/v1", "--upstream", "http://two:8000")
    settings = parse("--engine", "openai", *urls).settings
    assert settings.upstreams == ("http://one:8000", "http://two:8000")


def test_a_key_is_taken_or_made_and_shown(parse: Any) -> None:
    given = parse("--api-key", "0123456789abcdef")
    assert given.settings.api_keys.get_secret_value() == "default=0123456789abcdef"
    assert given.key == "0123456789abcdef"
    made = parse("--api-key", "new")
    assert made.key.startswith("sk-plato-")
    assert made.settings.protected
    assert parse().key is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["decoder=2"], "there is no setting --decoder; did you mean decoders?"),
        (["zzz=2"], "there is no setting --zzz"),
        (
            ["--engine", "openai", "--upstream", "http://One:1/v1/", "--upstream", "http://one:1"],
            "upstreams has http://one:1 2 times; name every server once",
        ),
        (["--zzz", "2"], "No such option: --zzz"),
        (
            ["--max-nodes", "1"],
            "--max-nodes is '1'; it takes a whole number, at least 2, at most 32",
        ),
        (["--dtype", "int4"], "--dtype is 'int4'; it takes one of auto, float32, bfloat16, int8"),
        (["--engine-options", "{"], "--engine-options is '{'; it takes a JSON object"),
        (["decoders=3", "max_decoders=2"], "max_decoders is 2, less than decoders (3)"),
        (["one", "two"], "'two' is not a setting; write SETTING=VALUE, and one model at most"),
        (["--embedded", "--metrics-port", "9"], "at /metrics"),
        (["--embedded", "--open-metrics"], "are for Ray"),
        (["--engine", "openai"], "add --upstream URL"),
        (["--upstream", "http://one:8000"], "add --engine openai"),
        (["--engine", "openai", "--upstream", "one:8000"], "'one:8000' is no URL"),
        (["--model", "one", "model=two"], "model is given twice, once as --model"),
        (["--model", "one", "two"], "model is given twice, once as --model"),
        (["--port", "x"], "Invalid value for '--port': it should be a valid integer; see: "),
        (["--api-key", "short"], "less than 16 characters"),
        (["--config", "/nowhere.toml"], "/nowhere.toml cannot be read (No such file"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], named: str) -> None:
    assert named in refused("serve", *arguments)


def test_wrong_variables_and_lines_of_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plato.toml"
    for content, named in (
        ("max_nodes = 1", f"max_nodes in {file} is 1; it takes a whole number"),
        ("decoder = 1", f"there is no setting decoder in {file}; did you mean decoders?"),
        ("max_nodes: 4", f"{file} is not TOML (Expected '=' after a key"),
    ):
        file.write_text(content)
        assert named in refused("serve", "--config", str(file))
    monkeypatch.setenv("PLATO_MAX_NODES", "1")
    assert "PLATO_MAX_NODES is '1'; it takes a whole number" in refused("serve")
    monkeypatch.delenv("PLATO_MAX_NODES")
    monkeypatch.setenv("PLATO_ENGINE_OPTIONS", "{")
    assert refused("serve") == "PLATO_ENGINE_OPTIONS takes a JSON object"


@pytest.mark.parametrize("way", [[], ["--embedded"]])
def test_a_port_in_use_is_told_before_anything_is_loaded(way: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused("serve", *way, "--port", str(port), "--model", "not/there")
    assert line.startswith(f"cannot listen on 127.0.0.1:{port} (Address already in use); stop")


@pytest.mark.hostile
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "plato.example.org"])
def test_other_machines_are_not_answered_without_keys(parse: Any, host: str) -> None:
    assert f"everybody who reaches {host} could ask" in refused("serve", "--host", host)
    for allowed in ("--allow-anonymous", OTHERS, "tenant_header=X-T"):
        assert parse("--host", host, allowed).host == host


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine_is_answered_without_keys(parse: Any, host: str) -> None:
    options = parse("--host", host)
    assert options.host == host
    assert urlsplit(options.url).netloc.removesuffix(":8000") in options.settings.allowed_hosts


@pytest.mark.hostile
def test_without_keys_a_server_on_loopback_has_only_the_names_of_this_machine(parse: Any) -> None:
    names = {"localhost", "*.localhost", "127.0.0.1", "[::1]"}
    assert set(parse().settings.allowed_hosts) == names
    for protected in ("--allow-anonymous", OTHERS, "tenant_header=X-T"):
        assert parse(protected).settings.allowed_hosts == ()
    named = parse("--allowed-hosts", "localhost,host.docker.internal").settings
    assert named.allowed_hosts == ("localhost", "host.docker.internal")


def test_keys_that_cannot_be_read_are_told_at_once() -> None:
    line = refused("serve", "--api-keys-file", "/nowhere")
    assert line == "the API keys in /nowhere cannot be read (No such file or directory)"


def test_the_help_has_every_setting_under_its_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    shown = plato("serve", "--help").stdout
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in shown
        assert field.description, f"{name} has no description"
        assert f"─ Settings: {section_of(name)} ─" in shown

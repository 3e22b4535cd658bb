"""The command line as a whole: help, versions, errors, imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from plato import __version__
from plato.api.access.keys import hash_key, read_keys
from plato.ports import free_port
from tests.cli.running import plato, printed, refused
from tests.replaying import ReplayServer, error


def test_help_names_the_commands() -> None:
    shown = plato("--help").stdout
    commands = ("ask", "chat", "plan", "batch", "runs", "trace", "serve", "doctor", "bench")
    for command in (*commands, "models", "config", "key", "tune", "version"):
        assert f" {command} " in shown
        assert plato(command, "--help").exit_code == 0


def test_versions() -> None:
    assert plato("--version").stdout == f"plato {__version__}\n"
    found = printed("version")
    assert found["plato"] == __version__
    assert found["python"] == sys.version.split()[0]
    assert f"torch {found['torch']}" in plato("version").stdout.splitlines()


def test_a_key_is_printed_with_its_line_for_the_server() -> None:
    key, line = plato("key", "shop").stdout.splitlines()
    assert read_keys([line]) == {hash_key(key): "shop"}
    assert refused("key", "two words").startswith("an API key is written TENANT=KEY")


@pytest.mark.parametrize(
    ("status", "fields", "code"),
    [
        (400, {"code": "invalid_value"}, 4),
        (401, {"code": "invalid_api_key"}, 4),
        (429, {"code": "overloaded"}, 5),
        (503, {"code": "unavailable"}, 5),
        (504, {"code": "deadline_exceeded"}, 5),
        (500, {"code": "internal_error"}, 1),
    ],
)
def test_the_exit_status_says_what_kind_of_error_it_was(
    status: int, fields: dict[str, str], code: int
) -> None:
    body = json.dumps(error("the reason; the remedy", **fields)).encode()
    with ReplayServer(body, status=status) as server:
        arguments = ("ask", "Why?", "--url", server.url)
        assert refused(*arguments, code=code).startswith("the reason; the remedy")
        as_json = plato(*arguments, "--json")
    assert (as_json.exit_code, as_json.stdout) == (code, "")
    told = json.loads(as_json.stderr)["error"]
    assert (told["message"], told["code"]) == ("the reason; the remedy", fields["code"])


def test_where_a_key_is_missing_its_option_is_named() -> None:
    body = json.dumps(error("send a key", code="invalid_api_key")).encode()
    with ReplayServer(body, status=401) as server:
        line = refused("ask", "Why?", "--url", server.url, code=4)
    assert line == "send a key (--api-key, or PLATO_API_KEY)"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:{free}", "nothing listens there"),
        ("http://no.such.host.invalid", "there is no host of this name"),
        ("localhost:8000", "write http://host:port"),
        ("ftp://localhost", "write http://host:port"),
    ],
)
def test_a_server_that_is_not_there_is_told_in_our_words(url: str, reason: str) -> None:
    url = url.format(free=free_port())
    for command in (("ask", "Why?"), ("runs", "show", "r1"), ("bench",)):
        line = refused(*command, "--url", url, code=3)
        assert url in line
        assert reason in line
        assert "rrno" not in line


def test_usage_errors_are_json_on_demand() -> None:
    told = json.loads(plato("ask", "", "--json").stderr)["error"]
    assert (told["type"], told["code"]) == ("invalid_request_error", "usage_error")
    assert json.loads(plato("ask", "--bad", "--json").stderr)["error"]["code"] == "usage_error"
    assert refused("nonsense").startswith("No such command 'nonsense'")


BASE = """
import json, sys

for name in ("torch", "ray", "transformers", "tokenizers", "huggingface_hub", "numpy"):
    sys.modules[name] = None
from plato.cli import app

codes = []
for command in json.loads(sys.argv[1]):
    try:
        app(command)
    except SystemExit as exit:
        codes.append(exit.code)
print(json.dumps(codes))
"""
"""Runs commands where nothing is installed but the client; prints their exit statuses."""


def run_base(commands: list[list[str]]) -> tuple[list[int], str]:
    """The exit statuses of these commands, and what they say on standard error."""
    ran = subprocess.run(
        [sys.executable, "-c", BASE, json.dumps(commands)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return json.loads(ran.stdout.splitlines()[-1]), ran.stderr


def test_asking_a_server_needs_neither_torch_nor_ray() -> None:
    with ReplayServer(b"", status=503) as server:
        asked = [[command, "Why?", "--url", server.url] for command in ("ask", "plan")]
        offline = [["config", "show"], ["key", "shop"], ["version"], ["serve", "--help"]]
        local = ["ask", "Why?", "--local"]
        codes, said = run_base([*asked, *offline, local])
    assert codes == [5, 5, 0, 0, 0, 0, 1], said
    assert "is not installed; run: pip install 'plato-serve[torch]'" in said


def test_the_doctor_works_where_hardly_anything_is_installed() -> None:
    codes, said = run_base([["doctor"]])
    assert codes == [0], said


def test_output_that_nobody_reads_is_no_error() -> None:
    command = f"{sys.executable} -m plato config show | head -1"
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30)
    assert shown.stderr == ""
    assert shown.stdout.strip() == "Sampling"

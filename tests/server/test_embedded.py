"""`plato serve --embedded` as a person runs it: one process, the same API, no Ray."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from plato.ports import free_port
from tests.end_to_end.server import Server
from tests.end_to_end.waiting import wait_until

pytestmark = pytest.mark.slow

BODY_S = 3


def embedded(folder: Path, model: str, **settings: object) -> Server:
    """A server with the tiny model; its log is in `folder`."""
    command = ("plato", "serve", "--embedded")
    given = {"served_model_name": "tiny", "kv_budget_mb": 16, **settings}
    return Server(folder, command, model=model, **given)


@pytest.fixture(scope="module")
def server(tiny_model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for the tests that leave it as it is, and for the one that ends it."""
    folder = tmp_path_factory.mktemp("embedded")
    with embedded(folder, tiny_model_folder, decoders=2, body_deadline_s=BODY_S) as running:
        yield running


def test_its_metrics_are_at_the_same_port(server: Server) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
    httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()

    def counted() -> bool:
        shown = server.metrics()
        tokens = [
            float(line.split()[-1])
            for line in shown.splitlines()
            if line.startswith("plato_decoded_tokens_total{")
        ]
        return len(tokens) == 2 and sum(tokens) >= 8

    wait_until(counted, 10, "the tokens are counted", every_s=0.2)


def test_half_requests_and_unread_streams_hold_nobody_up(server: Server) -> None:
    host, port = server.address
    question = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
    with ExitStack() as opened, httpx.Client(base_url=server.url, timeout=10) as http:

        def half(request: bytes) -> socket.socket:
            client = opened.enter_context(socket.create_connection((host, port), timeout=10))
            client.sendall(request)
            return client

        upload = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        )
        uploads = [half(upload) for _ in range(450)]
        for _ in range(450):
            half(upload[:20])
        run = http.post("/v1/runs", json={**question, "max_tokens": 1500}).json()["id"]
        followers = [
            half(b"GET /v1/runs/%s/events HTTP/1.1\r\nHost: localhost\r\n\r\n" % run.encode())
            for _ in range(400)
        ]
        began = time.monotonic()
        answer = http.post("/v1/chat/completions", json={**question, "max_tokens": 4})
        assert answer.is_success
        for path in ("/healthz", "/readyz", "/metrics"):
            assert http.get(path).is_success
        assert time.monotonic() - began < BODY_S
        http.delete(f"/v1/runs/{run}").raise_for_status()
        statuses = Counter(client.recv(12) for client in followers)
        assert statuses == {b"HTTP/1.1 200": 16, b"HTTP/1.1 429": 384}
        assert Counter(client.recv(12) for client in uploads) == {b"HTTP/1.1 408": 450}


@pytest.mark.hostile
def test_a_page_whose_name_leads_to_this_machine_is_refused(server: Server) -> None:
    headers = {"Authorization": "Bearer any", "Host": "rebound.example.com"}
    refused = httpx.get(f"{server.url}/v1/runs", headers=headers)
    assert refused.status_code == httpx.codes.FORBIDDEN
    assert "allowed_hosts" in refused.json()["error"]["message"]


def test_a_port_in_use_is_one_line_before_anything_is_loaded(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    for way in ([], ["--embedded"]):
        command = [sys.executable, "-m", "plato", "serve", *way, "--port", port]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert line.startswith(f"plato: cannot listen on 127.0.0.1:{port}")


@pytest.mark.parametrize("way", [[], ["--embedded"]])
def test_an_upstream_that_is_away_is_one_line(way: list[str], tiny_model_folder: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    options = ["--engine", "openai", "--upstream", url, "--model", tiny_model_folder]
    command = [sys.executable, "-m", "plato", "serve", *way, "--port", str(free_port())]
    refused = subprocess.run(
        [*command, *options, "upstream_start_s=0.1"], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(f"plato: the model {tiny_model_folder}: {url}: ")
    assert "the server is away" in last
    assert "Traceback" not in refused.stderr


def test_one_process_answers_and_ends_with_what_it_has_begun(server: Server) -> None:
    url = server.url
    assert server.processes("") == []
    with OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0, timeout=60) as client:
        stream = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "Which sea is the saltiest?"}],
            max_tokens=200,
            stream=True,
            extra_body={"plato": {"mode": "sequential"}},
        )
        next(iter(stream))
        server.tell(signal.SIGTERM)
        reasons = [chunk.choices[0].finish_reason for chunk in stream if chunk.choices]
    assert reasons[-1] == "length"
    assert server.wait(10) == 0
    assert "loading tiny" in server.log
    assert "serving tiny" in server.log
    assert f"API  {url}/v1" in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    "signals", [[signal.SIGHUP, signal.SIGTERM], [signal.SIGINT, signal.SIGINT]]
)
def test_an_answer_that_takes_too_long_ends_in_an_error(
    tiny_model_folder: str, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    drain_s = 60.0 if signals[1:] == [signal.SIGINT] else 1.5
    # One after the other: a fast machine decodes a part in a second.
    settings = {"equal_work": True, "drain_s": drain_s, "max_sequences": 1}
    parts = [{"title": f"Part {number}", "max_tokens": 1500} for number in range(1, 9)]
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Which sea is the saltiest?"}],
        "stream": True,
        "plato": {"mode": "plato", "plan": parts, "exact_lengths": True},
    }
    with (
        embedded(tmp_path, tiny_model_folder, **settings) as server,
        httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=body, timeout=30
        ) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        server.tell(signals[0])
        wait_until(lambda: not server.ready(), 20, "it is stopping")
        refused = httpx.post(f"{server.url}/v1/runs", json=body | {"stream": False}, timeout=10)
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        for number in signals[1:]:
            time.sleep(1.1)
            server.tell(number)
        data = [line for line in lines if line.startswith("data: ")]
        assert "the server stopped before the end of the answer" in data[-1]
        assert server.wait(15) == 0
        assert "Traceback" not in server.log


@pytest.mark.parametrize("after_s", [0.2, 0.5, 1.0])
def test_an_interrupt_while_it_starts_is_no_traceback(after_s: float) -> None:
    for way in ([], ["--embedded"]):
        command = [sys.executable, "-m", "plato", "serve", *way, "--port", str(free_port())]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as starting:
            time.sleep(after_s)
            starting.send_signal(signal.SIGINT)
            _, error = starting.communicate(timeout=15)
        assert "Traceback" not in error
        assert "KeyboardInterrupt" not in error


def test_with_a_store_a_run_outlives_its_server(
    tiny_model_folder: str, valkey_url: str, tmp_path: Path
) -> None:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Which sea is the saltiest?"}],
        "max_tokens": 1500,
        "plato": {"mode": "sequential"},
    }
    store = {"redis_url": valkey_url, "ownership_ttl_s": 1.5}
    with embedded(tmp_path, tiny_model_folder, **store) as server:
        run = httpx.post(f"{server.url}/v1/runs", json=body, timeout=60).json()["id"]
        time.sleep(0.5)
        server.tell(signal.SIGKILL)
        server.wait(10)
    with embedded(tmp_path, tiny_model_folder, **store) as server:

        def ended() -> bool:
            snapshot = httpx.get(f"{server.url}/v1/runs/{run}", timeout=10).json()
            return bool(snapshot["status"] == "done")

        wait_until(ended, 60, "the run has ended", every_s=0.2)

"""`plato serve --embedded` as a person runs it: one process, the same API, no Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from openai import OpenAI

from plato.ports import free_port
from tests.end_to_end.waiting import says_ok, wait_until

pytestmark = pytest.mark.slow


@contextmanager
def embedded(
    folder: Path, model: str, **settings: object
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server and its URL; its log is in `folder`."""
    port = free_port()
    given = {"model": model, "served_model_name": "tiny", "kv_budget_mb": 16, **settings}
    values = [f"{name}={value}" for name, value in given.items()]
    command = [sys.executable, "-m", "plato.cli", "serve", "--embedded", "--port", str(port)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PLATO_")}
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen([*command, *values], env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:

        def ready() -> bool:
            assert server.poll() is None, (folder / "log").read_text()[-3000:]
            return says_ok(f"{url}/readyz")

        wait_until(ready, 60, "the server is ready", every_s=0.1)
        yield server, url
    finally:
        server.kill()
        server.wait(10)


def test_one_process_answers_and_ends_with_what_it_has_begun(
    tiny_model_folder: str, tmp_path: Path
) -> None:
    with embedded(tmp_path, tiny_model_folder) as (server, url):
        assert psutil.Process(server.pid).children(recursive=True) == []
        with OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0, timeout=60) as client:
            stream = client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "Which sea is the saltiest?"}],
                max_tokens=200,
                stream=True,
                extra_body={"plato": {"mode": "sequential"}},
            )
            next(iter(stream))
            server.send_signal(signal.SIGTERM)
            reasons = [chunk.choices[0].finish_reason for chunk in stream if chunk.choices]
        assert reasons[-1] == "length"
        assert server.wait(10) == 0
    log = (tmp_path / "log").read_text()
    assert "loading tiny" in log
    assert f"serving tiny at {url}/v1" in log
    assert "Traceback" not in log


def test_its_metrics_are_at_the_same_port(tiny_model_folder: str, tmp_path: Path) -> None:
    with embedded(tmp_path, tiny_model_folder, decoders=2) as (_, url):
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
        httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).raise_for_status()

        def counted() -> bool:
            shown = httpx.get(f"{url}/metrics", timeout=10).text
            tokens = [
                float(line.split()[-1])
                for line in shown.splitlines()
                if line.startswith("plato_decoded_tokens_total{")
            ]
            return len(tokens) == 2 and sum(tokens) >= 8

        wait_until(counted, 10, "the tokens are counted", every_s=0.2)


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
    with embedded(tmp_path, tiny_model_folder, **store) as (server, url):
        run = httpx.post(f"{url}/v1/runs", json=body, timeout=60).json()["id"]
        time.sleep(0.5)
        server.kill()
    with embedded(tmp_path, tiny_model_folder, **store) as (_, url):

        def ended() -> bool:
            snapshot = httpx.get(f"{url}/v1/runs/{run}", timeout=10).json()
            print(str(snapshot)[:300])
            return bool(snapshot["status"] == "done")

        wait_until(ended, 60, "the run has ended", every_s=0.2)


def test_a_port_in_use_is_one_line_before_anything_is_loaded(
    tiny_model_folder: str, tmp_path: Path
) -> None:
    with embedded(tmp_path, tiny_model_folder) as (_, url):
        port = url.rpartition(":")[2]
        for way in ([], ["--embedded"]):
            command = [sys.executable, "-m", "plato.cli", "serve", *way, "--port", port]
            refused = subprocess.run(command, capture_output=True, text=True, timeout=30)
            assert refused.returncode == 2
            (line,) = refused.stderr.splitlines()
            assert line.startswith(f"plato serve: cannot listen on 127.0.0.1:{port}")

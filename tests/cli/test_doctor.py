"""What the doctor finds on this machine, and on worse ones."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from plato.cli.doctor import engines
from plato.ports import free_port
from tests.cli.running import plato


@pytest.fixture(autouse=True)
def model(tiny_model_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model, and a hub that is not asked."""
    monkeypatch.setenv("PLATO_MODEL", tiny_model_folder)
    monkeypatch.setenv("PLATO_KV_BUDGET_MB", "16")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def examined(*arguments: str, code: int = 0) -> dict[str, Any]:
    result = plato("doctor", *arguments, "--json")
    assert result.exit_code == code, result.stdout
    found = json.loads(result.stdout)
    assert all(each["found"] and each["advice"] for each in found)
    return {each["what"]: each for each in found}


def test_every_line_has_advice() -> None:
    found = examined("--port", str(free_port()))
    wanted = ("Python", "torch", "ray", "CUDA", "compiler", "kernels", "model", "adapter")
    for what in (*wanted, "engine", "memory", "disk", "/dev/shm", "port", "store", "hub", "Ray"):
        assert what in found
    assert found["model"]["level"] == "ok"
    assert found["port"]["level"] == "ok"
    shown = plato("doctor", "--port", str(free_port()))
    assert "✓  kernels" in shown.stdout


def test_a_port_in_use_and_a_missing_compiler_are_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = examined("--port", str(port))
    assert found["port"]["level"] == "warning"
    assert found["port"]["found"] == f"{port} is in use"
    assert found["compiler"]["advice"] == "install gcc, or set CC"


def test_what_would_fail_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATO_KV_BUDGET_MB", str(10**7))
    monkeypatch.setenv("PLATO_REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    found = examined(code=1)
    assert found["memory"]["level"] == "error"
    assert "--kv-budget-mb" in found["memory"]["advice"]
    assert found["store"]["level"] == "error"


def test_upstreams_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("PLATO_ENGINE", "openai")
    monkeypatch.setenv("PLATO_UPSTREAMS", url)
    began = time.monotonic()
    found = examined(code=1)
    assert time.monotonic() - began < 30, "as long as a start waits"
    assert url in found["engine"]["found"]
    assert found["engine"]["advice"].startswith("start the server, or correct --upstream of")


@pytest.mark.parametrize(
    ("status", "models", "advice"),
    [
        (401, {}, "for its key"),
        (503, {}, "wait until it has loaded its model"),
        (200, {"data": []}, "wait until it has loaded its model"),
        (301, {}, "correct --upstream of"),
        (200, {"data": [{"id": "other"}]}, "give both the same model"),
    ],
)
def test_the_advice_on_an_upstream_fits_its_fault(
    monkeypatch: pytest.MonkeyPatch, status: int, models: dict[str, Any], advice: str
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(models).encode())

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(engines, "START_S", 0.1)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PLATO_ENGINE", "openai")
        monkeypatch.setenv("PLATO_UPSTREAMS", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("PLATO_UPSTREAM_MODEL", "wanted")
        found = examined(code=1)
        server.shutdown()
    assert advice in found["engine"]["advice"]


def test_a_store_that_answers(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATO_REDIS_URL", valkey_url)
    assert examined()["store"]["level"] == "ok"

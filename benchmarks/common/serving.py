"""Servers in processes of their own, as people start them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from plato.ports import free_port
from plato.settings import Settings

READY_DEADLINE_S = 300.0
STOP_DEADLINE_S = 90.0
POLL_S = 0.05


@dataclass(frozen=True)
class Serving:
    """A server that is ready."""

    url: str
    pid: int
    started: float
    """`time.perf_counter` when its process was started."""
    ready_s: float
    """Seconds from there until it said that it was ready."""


@contextmanager
def serving(settings: Settings, *, embedded: bool) -> Iterator[Serving]:
    """`plato serve`, with or without Ray; stopped after the context. Raises `RuntimeError`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    given = [f"{name}={_text(getattr(settings, name))}" for name in settings.model_fields_set]
    way = ["--embedded"] if embedded else []
    command = [sys.executable, "-m", "plato.cli", "serve", *way, "--port", str(port), *given]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while not _is_ready(url):
                if process.poll() is not None or time.perf_counter() - started > READY_DEADLINE_S:
                    log.seek(0)
                    raise RuntimeError(f"the server did not start: {log.read()[-2000:]}")
                time.sleep(POLL_S)
            yield Serving(url, process.pid, started, time.perf_counter() - started)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    return value if isinstance(value, str) else json.dumps(value)

"""`plato serve` as a person runs it: it answers, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from plato.ports import free_port
from tests.end_to_end.waiting import says_ok, wait_until

pytestmark = pytest.mark.slow


def test_plato_serve_answers_and_leaves_nothing_behind(model_folder: str, tmp_path: Path) -> None:
    # Short: Ray's sockets lie in it.
    temporary = Path(f"/tmp/pt{os.getpid()}")
    temporary.mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("RAY_")
    } | {"TMPDIR": str(temporary), "HOME": str(tmp_path), "PLATO_URL": url}
    plato = [sys.executable, "-m", "plato.cli"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*plato, "serve", "--port", str(port), f"model={model_folder}", "decoder_cpus=0.5"],
            env=environment,
            stderr=log,
            stdout=log,
        )
    try:

        def ready() -> bool:
            assert server.poll() is None, (tmp_path / "log").read_text()[-3000:]
            return says_ok(f"{url}/readyz")

        wait_until(ready, 120, "the server is ready", every_s=0.1)
        assert httpx.get(f"{url}/healthz", timeout=5).json() == {"status": "ok"}

        asked = subprocess.run(
            [*plato, "ask", "What is rain?", "--mode", "plato", "--max-tokens", "60", "--json"],
            env=environment,
            capture_output=True,
            timeout=100,
            check=True,
        )
        answer = json.loads(asked.stdout)
        assert answer["answer"]
        assert answer["plato"]["mode"] == "plato"
        family = [server.pid, *(child.pid for child in psutil.Process(server.pid).children(True))]
        assert len(family) > 8, "Ray, five replicas and a Valkey"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)

    assert server.returncode == 0
    time.sleep(0.5)
    alive = [pid for pid in family if psutil.pid_exists(pid) and not _zombie(pid)]
    assert [psutil.Process(pid).cmdline() for pid in alive] == []
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
    assert not (tmp_path / ".ray").exists()
    log_lines = (tmp_path / "log").read_text().splitlines()
    opened = [line for line in log_lines if '"run started"' in line]
    assert opened, "structured logs carry the run"
    assert '"run": "' in opened[0]


def _zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

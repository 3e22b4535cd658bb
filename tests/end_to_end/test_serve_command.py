"""`plato serve` as a person runs it: `plato ask` gets an answer, and nothing is left behind.

The last tests of the shared server: they end it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from plato.settings import DEFAULT_MODEL
from tests.end_to_end.server import Server

pytestmark = pytest.mark.slow


def test_plato_ask_gets_an_answer(server: Server) -> None:
    assert httpx.get(f"{server.url}/healthz", timeout=5).json() == {"status": "ok"}
    question = ["ask", "What is rain?", "--mode", "plato", "--max-tokens", "60", "--json"]
    asked = subprocess.run(
        [sys.executable, "-m", "plato.cli", *question],
        env=os.environ | {"PLATO_URL": server.url, "HOME": str(server.home)},
        capture_output=True,
        timeout=100,
        check=True,
    )
    answer = json.loads(asked.stdout)
    assert answer["answer"]
    assert answer["plato"]["mode"] == "plato"
    opened = [line for line in server.log.splitlines() if '"run started"' in line]
    assert opened, "structured logs carry the run"
    assert '"run": "' in opened[0]


def test_plato_serve_leaves_nothing_behind(server: Server) -> None:
    family = server.processes("")
    assert len(family) > 8, "Ray, the replicas and a Valkey"
    assert list(server.temporary.iterdir()) != []

    assert server.stop() == 0
    time.sleep(0.5)
    assert [process.cmdline() for process in family if lives(process)] == []
    assert list(server.temporary.iterdir()) == []
    assert not (server.home / ".ray").exists()


@pytest.mark.soak
def test_plato_serve_needs_no_settings(tmp_path: Path) -> None:
    with Server(tmp_path) as running:
        asked = {
            "model": DEFAULT_MODEL,
            "messages": [{"role": "user", "content": "Why is it dark?"}],
        }
        answered = httpx.post(f"{running.url}/v1/chat/completions", json=asked, timeout=120)
        assert answered.json()["choices"][0]["message"]["content"]
        assert running.stop() == 0


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

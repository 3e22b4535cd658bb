"""`plato serve` as a person runs it: `plato ask` gets an answer, and nothing is left behind.

The last tests of the shared server: they end it.
"""

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

from plato.settings import DEFAULT_MODEL
from tests.end_to_end.asking import QUESTIONS, ask_all
from tests.end_to_end.server import Server
from tests.end_to_end.waiting import wait_until

pytestmark = pytest.mark.slow


def test_plato_ask_gets_an_answer(server: Server) -> None:
    assert httpx.get(f"{server.url}/healthz", timeout=5).json() == {"status": "ok"}
    question = ["ask", "What is rain?", "--mode", "plato", "--max-tokens", "60", "--json"]
    asked = subprocess.run(
        [sys.executable, "-m", "plato", *question],
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


def test_plato_serve_finishes_its_answers_and_leaves_nothing_behind(server: Server) -> None:
    family = server.processes("")
    assert len(family) > 8, "Ray, the replicas and a Valkey"
    assert list(server.temporary.iterdir()) != []
    refused: list[httpx.Response] = []

    def stop() -> None:
        # As `timeout` and terminals do: to every process of the group.
        server.tell_all(signal.SIGTERM)
        wait_until(lambda: not server.ready(), 10, "it is stopping")
        body = {"model": "small", "messages": [{"role": "user", "content": "Are you there?"}]}
        refused.append(httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=10))

    answers = ask_all(server, stop)
    assert [one.error for one in answers] == [""] * len(QUESTIONS)
    assert refused[0].status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert int(refused[0].headers["retry-after"]) >= 1
    assert server.wait(60) == 0
    assert_gone(server, family)
    assert not (server.home / ".ray").exists()


def assert_gone(server: Server, family: list[psutil.Process]) -> None:
    """Nothing of a server is left."""
    wait_until(lambda: not any(map(lives, family)), 15, "all processes are gone", every_s=0.1)
    wait_until(lambda: not list(server.temporary.iterdir()), 5, "so is the folder", every_s=0.1)


@pytest.mark.soak
@pytest.mark.parametrize(
    "signals",
    [
        [signal.SIGHUP],
        [signal.SIGINT, signal.SIGTERM],
        [signal.SIGKILL],
    ],
    ids=lambda signals: "-".join(each.name for each in signals),
)
def test_answers_that_take_too_long_end_in_an_error(
    model_folder: str, tmp_path: Path, signals: list[signal.Signals]
) -> None:
    with Server(tmp_path, model=model_folder, served_model_name="small", drain_s=2.0) as running:
        family = running.processes("")

        def stop() -> None:
            for number in signals:
                running.tell(number)
                time.sleep(0.2)

        answers = ask_all(running, stop)
        if signal.SIGKILL not in signals:
            assert any("the server stopped" in one.error for one in answers)
            assert not any("Protocol" in one.error for one in answers)
            assert running.wait(60) == 0
        assert_gone(running, family)


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

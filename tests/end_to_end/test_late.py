"""Processes that are late, and not dead: it costs time, never an answer, and no work twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.asking import QUESTIONS, ask_all, report
from tests.end_to_end.server import Server

TIMES = int(os.environ.get("PLATO_STALLS", "1"))
"""How often each stall is tried."""
BUSY_LOOPS = 16

pytestmark = [pytest.mark.slow, pytest.mark.soak]


@pytest.fixture(scope="module")
def single(model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of everything."""
    folder: Path = tmp_path_factory.mktemp("single")
    with Server(
        folder, model=model_folder, served_model_name="small", node_max_tokens=64
    ) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(single: Server) -> list[str]:
    answers = ask_all(single)
    assert [one.error for one in answers] == [""] * len(QUESTIONS)
    return [one.text for one in answers]


@contextmanager
def busy_machine() -> Iterator[None]:
    """Processes that want all cores."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BUSY_LOOPS)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.parametrize("stall_s", [1.0, 2.0, 3.0, 5.0, 8.0])
def test_the_only_scheduler_stalls(single: Server, undisturbed: list[str], stall_s: float) -> None:
    def disturb() -> None:
        (scheduler,) = single.replicas("SchedulerService")
        scheduler.send_signal(signal.SIGSTOP)
        threading.Timer(stall_s, scheduler.send_signal, [signal.SIGCONT]).start()

    for _ in range(TIMES):
        answers = ask_all(single, disturb)
        report(f"the scheduler stopped for {stall_s:g} s", answers)
        assert [one.error for one in answers] == [""] * len(QUESTIONS)
        assert [one.text for one in answers] == undisturbed


def test_a_busy_machine(single: Server, undisturbed: list[str]) -> None:
    for _ in range(TIMES):
        with busy_machine():
            began = time.monotonic()
            answers = ask_all(single)
            seconds = time.monotonic() - began
        tokens = sum(sum(one.parts.values()) for one in answers)
        report(f"{BUSY_LOOPS} busy loops: {tokens / seconds:.0f} tokens/s", answers)
        assert [one.error for one in answers] == [""] * len(QUESTIONS)
        assert [one.text for one in answers] == undisturbed
        assert sum(one.restarts for one in answers) == 0

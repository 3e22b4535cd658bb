"""The process that takes a server's signals: with a server that is a few lines long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil
import pytest

from plato.server.stages import OPENED
from tests.end_to_end.waiting import wait_until

SERVER = """
import os, signal, subprocess, sys, threading
from deployments import guard
from plato.server.options import stop_signals

drain_s, stop_s, stops_in_s = map(float, sys.argv[1:])

def serve():
    told = threading.Event()
    signals = []
    for number in stop_signals():
        signal.signal(number, lambda number, _: (signals.append(number), told.set()))
    guard_pid = os.getppid()
    # Left behind, as Ray leaves its agents.
    left = subprocess.Popen(["sh", "-c", "setsid sleep 60 & echo $!"], stdout=subprocess.PIPE)
    print(os.getpid(), int(left.stdout.readline()), flush=True)
    told.wait()
    print("stopping", len(signals), os.getppid() == guard_pid, flush=True)
    threading.Event().wait(stops_in_s)
    print("stopped", len(signals), flush=True)
    return 3

guard.STOP_S = stop_s
sys.exit(guard.guarded(serve, drain_s))
"""


class Guarded:
    """A guard, and what it guards."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self._output = process.stdout
        server, left = map(int, self._output.readline().split())
        self.server, self.left = psutil.Process(server), psutil.Process(left)

    def line(self) -> str:
        return self._output.readline().strip()

    def status(self) -> int:
        """The exit status, once everything is gone."""
        status = self.process.wait(10)
        assert self.gone()
        return status

    def gone(self) -> bool:
        return not any(
            process.is_running() and process.status() != psutil.STATUS_ZOMBIE
            for process in (self.server, self.left)
        )


@contextmanager
def guarded(
    drain_s: float = 20.0,
    stop_s: float = 20.0,
    stops_in_s: float = 0.3,
    *,
    nohup: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Guarded]:
    times = map(str, (drain_s, stop_s, stops_in_s))
    command = [sys.executable, "-c", SERVER, *times]
    # The tests themselves may run under nohup, which the guard would inherit.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        signal.signal(signal.SIGHUP, before)
        running = Guarded(process)
        try:
            yield running
        finally:
            process.kill()
            if running.server.is_running():
                running.server.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_stops_the_server_once(number: signal.Signals) -> None:
    with guarded() as running:
        os.killpg(running.process.pid, number)
        # As `timeout` does.
        running.process.send_signal(number)
        assert running.line() == "stopping 1 True"
        assert running.line() == "stopped 1"
        assert running.status() == 3


def test_a_browser_that_was_opened_for_the_user_outlives_the_server() -> None:
    with guarded(environment={OPENED: "1"}) as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 3
        assert not running.server.is_running()
        assert running.left.is_running()
        running.left.kill()


def test_other_signals_do_not_disturb_the_stop() -> None:
    with guarded(stops_in_s=1.5) as running:
        running.process.send_signal(signal.SIGINT)
        assert running.line() == "stopping 1 True"
        time.sleep(1.1)
        running.process.send_signal(signal.SIGTERM)
        assert running.line() == "stopped 1"
        assert running.status() == 3


def test_a_second_interrupt_ends_it_at_once() -> None:
    with guarded(stops_in_s=60) as running:
        running.process.send_signal(signal.SIGINT)
        assert running.line() == "stopping 1 True"
        time.sleep(1.1)
        running.process.send_signal(signal.SIGINT)
        assert running.status() == 1


def test_a_server_that_does_not_stop_is_killed() -> None:
    with guarded(drain_s=0.5, stop_s=0.5, stops_in_s=60) as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.line() == "stopping 1 True"
        assert running.status() == 1


def test_the_server_stops_if_its_guard_is_killed() -> None:
    with guarded() as running:
        running.process.kill()
        assert running.line() == "stopping 1 False"
        assert running.line() == "stopped 1"


def test_what_a_killed_server_leaves_is_killed() -> None:
    with guarded() as running:
        running.server.kill()
        assert running.status() == 1
        assert running.process.stderr is not None
        assert "killed (SIGKILL)" in running.process.stderr.read()


def test_nohup_protects_from_a_closed_terminal_only() -> None:
    with guarded(nohup=True) as running:
        running.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert running.process.poll() is None
        running.process.send_signal(signal.SIGTERM)
        assert running.line() == "stopping 1 True"
        assert running.status() == 3


def test_orphans_do_not_become_zombies() -> None:
    with guarded() as running:
        running.left.kill()
        wait_until(lambda: not running.left.is_running(), 5, "it is reaped")
        assert running.process.poll() is None

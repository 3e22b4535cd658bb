"""Folders of Ray instances: removed with their processes, also after a SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deployments.session_folder import session_folder, sweep
from tests.end_to_end.waiting import wait_until

OWNER = """
import subprocess, sys
from deployments.session_folder import session_folder
with session_folder() as folder:
    log = open(f"{folder}/log", "w")
    agent = subprocess.Popen(["sleep", "60"], stdout=log, start_new_session=True)
    print(folder, agent.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def owner(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def started(owner: subprocess.Popen[str]) -> tuple[Path, psutil.Process]:
    """Its folder, and the process that writes to it."""
    assert owner.stdout is not None
    folder, pid = owner.stdout.readline().split()
    return Path(folder), psutil.Process(int(pid))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_folder_and_what_writes_to_it_end_with_the_context(
    temporary: Path, owner: subprocess.Popen[str]
) -> None:
    folder, agent = started(owner)
    assert folder.parent == temporary
    owner.communicate(timeout=10)
    assert not folder.exists()
    assert gone(agent)


def test_what_a_killed_process_has_left_is_swept(owner: subprocess.Popen[str]) -> None:
    folder, agent = started(owner)
    owner.send_signal(signal.SIGKILL)
    owner.wait(10)
    assert folder.exists()
    assert not gone(agent)
    with session_folder() as new:
        assert not folder.exists()
        wait_until(lambda: gone(agent), 5, "the process that wrote to the folder is gone")
        assert Path(new).exists()
    assert not Path(new).exists()


def test_what_belongs_to_a_living_process_is_left_alone(owner: subprocess.Popen[str]) -> None:
    folder, agent = started(owner)
    sweep()
    assert folder.exists()
    assert not gone(agent)


def test_whoever_only_reads_a_log_is_not_killed(owner: subprocess.Popen[str]) -> None:
    folder, _ = started(owner)
    with subprocess.Popen(["tail", "-f", str(folder / "log")]) as reader:
        time.sleep(0.3)
        owner.kill()
        owner.wait(10)
        sweep()
        assert not folder.exists()
        assert reader.poll() is None
        reader.kill()

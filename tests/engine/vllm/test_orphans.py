"""Processes of vLLM do not outlive the one that started them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from plato.engine.vllm.orphans import OWNER, own
from tests.engine.waiting import until

WORKER = """
import time
from plato.engine.vllm.orphans import end_with_owner
end_with_owner()
print("ready", flush=True)
time.sleep(60)
"""
SCHEDULER = f"""
import os, subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", {WORKER!r}])
print(os.getpid(), worker.pid, flush=True)
time.sleep(60)
"""
OWNING = f"""
import os, subprocess, sys, time
from plato.engine.vllm.orphans import own
own(os.environ)
subprocess.Popen([sys.executable, "-c", {SCHEDULER!r}])
time.sleep(60)
"""


def ended(process: int) -> bool:
    """Whether it is gone, or nobody has asked yet how it ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_workers_and_their_parent_end_when_the_owner_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNING], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        scheduler, worker = map(int, it.stdout.readline().split())
        try:
            assert it.stdout.readline() == "ready\n"
            assert not ended(scheduler)
            it.kill()
            it.wait()
            asyncio.run(until(lambda: ended(scheduler) and ended(worker), 20))
        finally:
            for process in (scheduler, worker):
                if not ended(process):
                    os.kill(process, signal.SIGKILL)


def test_a_process_owns_what_it_starts_with_that_environment() -> None:
    environment: dict[str, str] = {}
    own(environment)
    assert environment == {OWNER: str(os.getpid())}

"""Servers in processes of their own, as people start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from plato.ports import free_port
from plato.settings import Settings

READY_DEADLINE_S = 300.0
STOP_DEADLINE_S = 90.0
POLL_S = 0.05
SHOWN_LOG_CHARS = 2000


@dataclass(frozen=True)
class Serving:
    """A server that is ready."""

    url: str
    pid: int
    """Of its first process, and of its process group."""
    started: float
    """`time.perf_counter` when its process was started."""
    ready_s: float
    """Seconds from there until it said that it was ready."""

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """All its processes stand still."""
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.pid, signal.SIGCONT)


@contextmanager
def launched(
    command: Sequence[str | Path],
    url: str,
    *,
    ready: str,
    log: Path,
    deadline_s: float = READY_DEADLINE_S,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Serving]:
    """A server at `url`, whose output goes to `log`; all its processes end with the context.

    It is ready when it answers a GET of the path `ready`. Raises `RuntimeError` with the end of the
    log if it ends before, or is not ready within `deadline_s`.
    """
    started = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            # For signals to all its processes. Not a session: those get equal shares of the CPU.
            process_group=0,
        )
    try:
        while not _is_ready(f"{url}{ready}"):
            waited = time.perf_counter() - started
            if process.poll() is not None or waited > deadline_s:
                what = "ended" if process.poll() is not None else "is not ready"
                end = log.read_text(errors="replace")[-SHOWN_LOG_CHARS:]
                raise RuntimeError(f"{command[0]} {what} after {waited:.0f} s; {log} ends:\n{end}")
            time.sleep(POLL_S)
        yield Serving(url, process.pid, started, time.perf_counter() - started)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_DEADLINE_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def serving(
    settings: Settings, *, embedded: bool, python: str | Path = sys.executable
) -> Iterator[Serving]:
    """`plato serve`, with or without Ray; stopped after the context. Raises `RuntimeError`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    given = [f"{name}={_text(getattr(settings, name))}" for name in settings.model_fields_set]
    way = ["--embedded"] if embedded else []
    command = [python, "-m", "plato", "serve", *way, "--port", str(port), *given]
    with (
        tempfile.TemporaryDirectory() as folder,
        launched(command, url, ready="/readyz", log=Path(folder) / "log") as server,
    ):
        yield server


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)

"""`plato serve` in a process of its own, whose parts a test can kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import psutil

from plato.metrics.table import SEQUENCES
from plato.ports import free_port
from tests.end_to_end.exposition import Scrape
from tests.end_to_end.waiting import says_ok, wait_until

READY_DEADLINE_S = 180.0
EXPORT_S = 1
"""How often Ray exports metrics; 10 s is its default."""
PREFIX = "ray_"


class Server:
    """A server with the given settings; all of it is gone after the context."""

    def __init__(
        self, folder: Path, command: tuple[str, ...] = ("plato", "serve"), **settings: object
    ) -> None:
        """`command` is a module to run, and its arguments in front of those that are common.

        Greedy unless `settings` say otherwise: tests compare answers.
        """
        self._folder = folder
        self._command = command
        self._settings = {"equal_work": True, "temperature": 0.0, **settings}
        self._embedded = "--embedded" in command
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        self._metrics_port = free_port()
        # Short: Ray's sockets lie in it.
        self.temporary = Path(tempfile.mkdtemp(prefix="pr", dir="/tmp"))
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        cache = self.home / ".cache"
        if not cache.exists():
            # What was compiled and downloaded need not be again.
            cache.symlink_to(Path.home() / ".cache")

    def __enter__(self) -> Self:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("RAY_")
        } | {
            "TMPDIR": str(self.temporary),
            "HOME": str(self.home),
            "RAY_metrics_report_interval_ms": str(1000 * EXPORT_S),
        }
        metrics = () if self._embedded else ("--metrics-port", str(self._metrics_port))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", *self._command, "--port", str(self._port)),
                    *metrics,
                    *(f"{name}={value}" for name, value in self._settings.items()),
                ],
                env=environment,
                stdout=log,
                stderr=log,
                # A group of its own, for `tell_all`.
                process_group=0,
            )
        wait_until(self.ready, READY_DEADLINE_S, "the server is ready", every_s=0.1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            self.stop()
        shutil.rmtree(self.temporary, ignore_errors=True)
        if error is not None:
            print(self.log[-6000:])

    def stop(self) -> int | None:
        """End the server as an operator would; returns its exit status, `None` if it hangs."""
        assert self._process is not None
        for process in self.processes(""):
            # What is stopped cannot be told to end.
            process.send_signal(signal.SIGCONT)
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return None

    def tell(self, number: signal.Signals) -> None:
        """Send the server's own process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def tell_all(self, number: signal.Signals) -> None:
        """Send every process of the server's group a signal."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def wait(self, deadline_s: float) -> int:
        """Wait for the end of the server's own process; returns its exit status."""
        assert self._process is not None
        return self._process.wait(deadline_s)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", self._port

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return self._log.read_text()

    def ready(self) -> bool:
        """Whether a question would be answered now."""
        assert self._process is not None
        assert self._process.poll() is None, self.log[-3000:]
        return says_ok(f"{self.url}/readyz")

    def metrics(self) -> str:
        """What Prometheus would get now."""
        url = self.url if self._embedded else f"http://127.0.0.1:{self._metrics_port}"
        return httpx.get(f"{url}/metrics", timeout=10).raise_for_status().text

    def live(self) -> int:
        """Sequences that the decoders had at the last sample, at most `EXPORT_S` + 1 s ago."""
        prefix = "" if self._embedded else PREFIX
        return round(Scrape(self.metrics()).total(f"{prefix}{SEQUENCES.name}"))

    def processes(self, name: str) -> list[psutil.Process]:
        """The server's processes whose command line has `name` in it, oldest first."""
        assert self._process is not None
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            try:
                if name in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return sorted(found, key=lambda process: process.create_time())

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """The processes of a deployment's replicas."""
        return self.processes(f"ServeReplica:plato:{deployment}")

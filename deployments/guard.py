"""The process that the operator sees: it takes the signals of a server and cleans up after it.

Ray's processes end when they get a signal that is meant for all processes of a terminal or a
service (Ctrl-C, a closed terminal, `timeout`), and then nothing can stop in order. Therefore the
server runs in a process group of its own, and this one tells it when to stop.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from deployments.session_folder import KILL_DEADLINE_S, sweep
from plato.server.options import SECOND_S, stop_signals
from plato.server.stages import OPENED

STOP_S = 30.0
"""Time to stop, in addition to that for draining."""
STOP = signal.SIGHUP
"""What tells the server to stop. Ray has a handler of its own for SIGTERM while it starts."""
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def guarded(serve: Callable[[], int], drain_s: float) -> int:
    """Call `serve` in another process; returns the exit status.

    SIGINT, SIGTERM and SIGHUP become one `STOP` there. The process is killed if it has not ended
    `drain_s` and `STOP_S` later, or at a second SIGINT; it gets a `STOP` if this one dies. All
    processes that it has left are killed.
    """
    signals = stop_signals()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals | {signal.SIGCHLD})
    # Processes whose parents have ended become children of this one.
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    server = os.fork()
    if server == 0:
        # Not a session: Linux shares the CPU out by session (autogroup), and decoders then starve
        # Ray's agents, which have the metrics.
        os.setpgid(0, 0)
        _prctl(PR_SET_PDEATHSIG, STOP)
        if os.getppid() != guard:
            return 1
        # One for the terminal that came before `setpgid`.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # `nohup` ignores it.
        signal.signal(STOP, signal.SIG_DFL)
        # Ray's processes inherit the mask.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return serve()
    try:
        return _watch(server, signals, drain_s + STOP_S)
    finally:
        _kill_children()
        # If the server was killed.
        sweep()


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _watch(server: int, signals: set[signal.Signals], stop_s: float) -> int:
    """Pass signals on until the server has ended; returns its exit status."""
    told_at: float | None = None
    while True:
        left_s = 3600.0 if told_at is None else told_at + stop_s - time.monotonic()
        got = signal.sigtimedwait(signals | {signal.SIGCHLD}, max(left_s, 1.0))
        if (status := _reap().get(server)) is not None:
            break
        now = time.monotonic()
        if told_at is None:
            if got is not None and got.si_signo in signals:
                told_at = now
                os.kill(server, STOP)
        elif now > told_at + stop_s or (
            got is not None and got.si_signo == signal.SIGINT and now > told_at + SECOND_S
        ):
            os.kill(server, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    if told_at is not None and code == -STOP:
        # It had not even begun.
        return 0
    sys.stderr.write(f"plato serve: the server was killed ({signal.Signals(-code).name})\n")
    return 1


def _reap() -> dict[int, int]:
    """The wait status of every child that has ended, by process id."""
    ended: dict[int, int] = {}
    with suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended[child[0]] = child[1]
    return ended


def _kill_children() -> None:
    """Kill what is left of the server; children of what is killed become children here."""
    deadline = time.monotonic() + KILL_DEADLINE_S
    while (children := _children()) and time.monotonic() < deadline:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        _reap()


def _children() -> list[int]:
    pids = map(int, Path("/proc/thread-self/children").read_text().split())
    return [pid for pid in pids if not _is_users(pid)]


def _is_users(pid: int) -> bool:
    """Whether a process is a program that was opened for the user, or was started by one."""
    with suppress(OSError):
        return f"{OPENED}=".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False

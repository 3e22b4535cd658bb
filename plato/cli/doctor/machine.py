"""Checks of the machine: memory, disk, shared memory, ports, other programs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from plato.caches import cache_root
from plato.cli.doctor.finding import Finding, error, ok, warning
from plato.errors import PlatoError
from plato.models.adapter import find_adapter
from plato.server.options import ServeOptions
from plato.settings import UPSTREAM_ENGINE, Settings

MEMORY_FREE_MB = 1500
"""What a server needs beside weights and KV: Python, torch, buffers."""
DISK_MB = 2000
"""The default model, its conversion, and packed weights."""
SHM_MB = 256
"""Below this Ray writes its objects to disk."""
BYTES_PER_WEIGHT = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.2}
"""In memory; int8 has scales, and its embeddings are float."""


def check_system(_: Settings) -> Iterator[Finding]:
    """Python and the operating system."""
    found = f"{sys.version.split()[0]} on {sys.platform}"
    if sys.platform == "linux":
        yield ok("Python", found, "nothing to do")
    else:
        yield warning("Python", found, "use Linux for plato serve; the client works everywhere")


def check_memory(settings: Settings) -> Iterator[Finding]:
    """Free memory against what the model needs."""
    free_mb = _free_memory_mb()
    if free_mb is None:
        yield warning("memory", "unknown on this system", "leave twice the model's size free")
        return
    needed = _needed_mb(settings)
    if needed is None:
        yield ok("memory", f"{free_mb} MiB free", "look again when the model is here")
        return
    found = f"{free_mb} MiB free, about {needed} MiB needed"
    if needed <= free_mb:
        yield ok("memory", found, "--kv-budget-mb can be raised by what is left")
    else:
        yield error("memory", found, "lower --kv-budget-mb or --decoders, or use a smaller model")


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Space for models and caches."""
    folder = cache_root(settings.cache_dir)
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free_mb = shutil.disk_usage(there).free >> 20
    found = f"{free_mb} MiB free for {folder}"
    if not os.access(there, os.W_OK):
        yield error("disk", f"{there} cannot be written", "set --cache-dir to another folder")
    elif free_mb < DISK_MB:
        yield warning("disk", found, f"leave {DISK_MB} MiB, or set --cache-dir to another disk")
    else:
        yield ok("disk", found, "plato models rm deletes what is not needed")


def check_shared_memory(_: Settings) -> Iterator[Finding]:
    """`/dev/shm`, in which Ray keeps its objects."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        yield ok("/dev/shm", "there is none on this system", "nothing to do")
        return
    free_mb = shutil.disk_usage(folder).free >> 20
    if free_mb < SHM_MB:
        yield warning(
            "/dev/shm",
            f"{free_mb} MiB free",
            "start the container with --shm-size=1g, or serve with --embedded",
        )
    else:
        yield ok("/dev/shm", f"{free_mb} MiB free", "nothing to do")


def check_port(settings: Settings, port: int) -> Iterator[Finding]:
    """Whether a server could listen."""
    options = ServeOptions(settings, port=port)
    try:
        options.bind().close()
    except PlatoError:
        yield warning("port", f"{port} is in use", "stop what uses it, or serve with --port")
    else:
        yield ok("port", f"{port} is free", "--port chooses another")


def check_other_ray(_: Settings) -> Iterator[Finding]:
    """Another Ray on this machine."""
    address = os.environ.get("RAY_ADDRESS")
    if address:
        yield warning(
            "Ray",
            f"RAY_ADDRESS is {address}",
            "plato serve starts a Ray of its own; to use that one: serve run deployments.app:build",
        )
    elif pid := _raylet():
        yield ok(
            "Ray",
            f"another one runs here (process {pid})",
            "plato serve starts its own beside it; mind the memory of both",
        )
    else:
        yield ok("Ray", "no other runs here", "nothing to do")


def _free_memory_mb() -> int | None:
    """What can be allocated here without swapping, within the limit of a container."""
    free = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(each for each in lines if each.startswith("MemAvailable:"))
        free.append(int(line.split()[1]) >> 10)
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())
        free.append(max(0, limit - int((group / "memory.current").read_text())) >> 20)
    return min(free, default=None)


def _needed_mb(settings: Settings) -> int | None:
    """About what the decoders need; None if the model, or what reads it, is not on this machine."""
    if settings.engine == UPSTREAM_ENGINE:
        return MEMORY_FREE_MB
    if find_spec("huggingface_hub") is None:
        return None
    from plato.models.local import find_local, parameters

    try:
        folder = find_local(settings.model, settings.cache_dir)
        copies = 2 if find_adapter(settings) is not None else 1
    except PlatoError:
        return None
    if folder is None:
        return None
    dtype = "int8" if settings.dtype == "auto" else settings.dtype
    weights_mb = parameters(folder) * BYTES_PER_WEIGHT[dtype] * copies / 2**20
    return round((weights_mb + settings.kv_budget_mb) * settings.decoder_count + MEMORY_FREE_MB)


def _raylet() -> int | None:
    """The process id of a Ray node of somebody else."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "comm").read_text().strip() == "raylet":
                return int(folder.name)
    return None

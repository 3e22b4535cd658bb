"""Memory on huge pages."""

from __future__ import annotations

import mmap
from contextlib import suppress

import torch


def huge_pages(size: int) -> torch.Tensor:
    """uint8 [size], zeros, on huge pages if the system supports them."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, max(1, size), flags=flags)
    # Only a hint, and not available everywhere.
    with suppress(OSError, AttributeError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)[:size]

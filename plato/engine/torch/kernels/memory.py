"""Memory that a step reads as a whole."""

from __future__ import annotations

import mmap
from contextlib import suppress

import torch


def huge_pages(size: int) -> torch.Tensor:
    """uint8 [size], zeros, on huge pages where the system has them."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, max(1, size), flags=flags)
    # Asking costs nothing, and is not possible everywhere.
    with suppress(OSError, AttributeError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)[:size]

"""Ctrl-C while modules are imported."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def abrupt_interrupts() -> Iterator[None]:
    """Within the block Ctrl-C ends the process at once, without a traceback.

    For imports, which take a second and leave nothing to clean up: extension modules print what
    interrupts them. Only in the main thread.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)

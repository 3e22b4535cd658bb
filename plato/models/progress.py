"""Progress of downloads and conversions."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
"""Called with a description of the current step and the overall progress (0 to 1)."""


@contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
    """The caller's progress; by default a progress bar on a terminal, else a log line per step."""
    if progress is not None:
        yield progress
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield bar
    else:
        yield _log_lines()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TimeElapsedColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=1.0)
        yield lambda what, share: bars.update(task, description=what, completed=share)


def _log_lines() -> Progress:
    last = ""

    def log(what: str, share: float) -> None:
        nonlocal last
        if what != last:
            logger.info("%s", what)
            last = what

    return log

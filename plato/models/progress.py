"""Telling the user how far a download or a conversion is."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
"""Called with what is being done, and the share of the whole that is done (0 to 1)."""


@contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
    """The caller's progress; else one bar on a terminal, or a log line for everything new."""
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

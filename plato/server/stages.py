"""The stages of a server's start, told on standard error."""

from __future__ import annotations

import os
import sys
import time
import webbrowser
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from plato.server.options import ServeOptions

OPENED = "PLATO_OPENED_BY"
"""Environment variable of programs that were opened for the user, and outlive the server."""


class Stages:
    """Tells each stage with the seconds since the start; on a terminal, a bar moves meanwhile.

    Can be called from several threads.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._bar: Progress | None = None
        self._last_step = ""
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str) -> None:
        """Tell that a stage begins."""
        if self._bar is not None:
            self._bar.reset(self._task, total=None, description="")
        self._write(f"{time.monotonic() - self._started:5.1f} s  {stage}")

    def progress(self, step: str, share: float) -> None:
        """Tell how much of a step is done, from 0 to 1; a `plato.models.Progress`."""
        if self._bar is not None:
            self._bar.update(self._task, total=1.0, completed=share, description=step)
        elif step != self._last_step:
            self(step)
        self._last_step = step

    def ready(self, options: ServeOptions, metrics_url: str) -> None:
        """End with what can be done now; opens the page if `options` say so."""
        self(f"serving {options.settings.model_name}")
        rows = {
            "page": f"{options.url}/",
            "API": f"{options.url}/v1",
            "metrics": metrics_url,
            "key": options.key or _key_words(options),
        }
        for name, value in rows.items():
            self._write(f"{name:>9}  {value}")
        if options.open_page:
            self._open(f"{options.url}/")

    def _open(self, url: str) -> None:
        # Without a display it could be a browser that takes this terminal.
        if sys.platform != "darwin" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
            self._write(f"there is no display to open a browser on; visit {url}")
            return
        os.environ[OPENED] = str(os.getpid())
        try:
            webbrowser.open(url)
        finally:
            del os.environ[OPENED]

    def _write(self, line: str) -> None:
        # While a bar moves, it stands below what is written here.
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _key_words(options: ServeOptions) -> str:
    if options.settings.protected:
        return "needed, as configured"
    return "none needed"

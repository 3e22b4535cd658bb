"""The client of a command: of a server, or of a runtime in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from rich.console import Console

from plato.client import DEFAULT_URL, Asker, AsyncClient, LocalClient
from plato.logs import configure_logs
from plato.settings import Settings, read_settings


@asynccontextmanager
async def open_client(
    url: str | None, api_key: str | None, *, local: bool, console: Console
) -> AsyncGenerator[Asker]:
    """A client of the named or default server, or of a runtime in this process."""
    if not local:
        async with AsyncClient(url or DEFAULT_URL, api_key=api_key) as client:
            if url is not None or await client.answers():
                yield client
                return
        console.print(f"no server at {DEFAULT_URL}: answering in this process", style="dim")
    settings = read_settings()
    log_if_wanted(settings)
    from plato.models.adapter import ModelFiles

    # Before the other display: it shows the progress of a download.
    await asyncio.to_thread(ModelFiles.resolve, settings)
    with console.status("loading the model"):
        from plato.runtime import Runtime

        opened = await Runtime.open(settings)
    async with LocalClient(opened) as in_process:
        yield in_process


def log_if_wanted(settings: Settings) -> None:
    """Show the log only if a level is set: errors are printed, and users do not need the rest."""
    if "log_level" in settings.model_fields_set:
        configure_logs(settings.log_level)
    else:
        logging.getLogger("plato").addHandler(logging.NullHandler())

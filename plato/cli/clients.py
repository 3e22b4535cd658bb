"""The client of a command: of a server, or of a runtime in this process."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from rich.console import Console

from plato.cli.options import DEFAULT_URL
from plato.client import Client, HttpClient, LocalClient
from plato.logs import configure_logs
from plato.settings import Settings, read_settings


@asynccontextmanager
async def open_client(
    url: str | None, api_key: str | None, *, local: bool, console: Console
) -> AsyncGenerator[Client]:
    """A client of the named or default server, or of a runtime in this process."""
    if not local:
        client = HttpClient(url or DEFAULT_URL, api_key=api_key)
        if url is not None or await client.answers():
            yield client
            return
        console.print(f"no server at {DEFAULT_URL}: answering in this process", style="dim")
    with console.status("loading the model"):
        from plato.runtime import Runtime

        settings = read_settings()
        log_if_wanted(settings)
        opened = await Runtime.open(settings)
    async with opened as runtime:
        yield LocalClient(runtime)


def log_if_wanted(settings: Settings) -> None:
    """Show the log only if a level is set: errors are printed, and users do not need the rest."""
    if "log_level" in settings.model_fields_set:
        configure_logs(settings.log_level)
    else:
        logging.getLogger("plato").addHandler(logging.NullHandler())

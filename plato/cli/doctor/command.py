"""The command: runs all checks, and prints a line for each finding."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from plato.cli.doctor import engines, machine, services
from plato.cli.doctor.finding import Finding, Level
from plato.cli.errors import ExitCode
from plato.cli.options import AsJson, SettingsFile
from plato.cli.setting_sources import gather_settings
from plato.cli.tables import print_rows
from plato.settings import Settings

Check = Callable[[Settings], Iterator[Finding]]
_SIGNS = {Level.OK: ("✓", "green"), Level.WARNING: ("!", "yellow"), Level.ERROR: ("✗", "red")}


def doctor(
    model: Annotated[str | None, typer.Argument(help="The model, as for `plato serve`.")] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server.")] = 8000,
    config: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Look at everything that `plato serve` needs, and say what to do.

    Exit status: 1 if something has to be changed, else 0.
    """
    settings = gather_settings({} if model is None else {"model": model}, config).settings
    servers = f"the servers {', '.join(settings.upstreams)}"
    checks: dict[str, Check] = {
        "Python": machine.check_system,
        "packages": engines.check_packages,
        "CUDA": engines.check_device,
        "compiler": engines.check_kernels,
        "model": engines.check_model,
        servers if settings.upstreams else "engine": engines.check_engine,
        "memory": machine.check_memory,
        "disk": machine.check_disk,
        "/dev/shm": machine.check_shared_memory,
        "port": partial(machine.check_port, port=port),
        "store": services.check_store,
        "hub": services.check_hub,
        "Ray": machine.check_other_ray,
    }
    found: list[Finding] = []
    with Console(stderr=True).status("") as status:
        for name, check in checks.items():
            status.update(escape(f"looking at {name}"))
            found += check(settings)
    if as_json:
        print(json.dumps([asdict(each) for each in found]))
    else:
        _print(found)
    if any(each.level is Level.ERROR for each in found):
        raise typer.Exit(ExitCode.FAILED)


def _print(found: list[Finding]) -> None:
    rows = []
    for each in found:
        sign, style = _SIGNS[each.level]
        rows.append(
            (Text(sign, style=style), each.what, each.found, Text(each.advice, style="dim"))
        )
    print_rows(rows)

"""`plato config`."""

from __future__ import annotations

import json
import sys
from itertools import groupby
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from plato.cli.options import AsJson, SettingsFile
from plato.cli.setting_sources import SourcedSettings, gather_settings
from plato.settings import Settings, section_of
from plato.validation import is_secret

HIDDEN = "(secret)"
DEFAULT = "default"

config = typer.Typer(help="The settings of this machine.", no_args_is_help=True)


@config.callback()
def _config() -> None:
    """The settings of this machine."""


@config.command()
def show(file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Print every setting, its value, and where that comes from: a variable, a file, or a default.

    Secrets are not printed. `plato serve --help` says what each setting means.
    """
    found = gather_settings({}, file)
    rows = {name: (_value(found, name), found.sources.get(name)) for name in Settings.model_fields}
    if as_json:
        print(
            json.dumps(
                {
                    name: {"value": value, "source": source or DEFAULT}
                    for name, (value, source) in rows.items()
                }
            )
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for section, names in groupby(rows, section_of):
        table.add_row(f"[bold]{section}")
        for name in names:
            value, source = rows[name]
            style = "dim" if source is None else ""
            shown = value if isinstance(value, str) else json.dumps(value)
            table.add_row(f"  {name}", shown, source or DEFAULT, style=style)
    console = Console()
    # A file or a pipe gets whole lines.
    console.print(table, width=None if sys.stdout.isatty() else 200)


def _value(found: SourcedSettings, name: str) -> Any:
    value = getattr(found.settings, name)
    if value is not None and is_secret(Settings.model_fields[name]):
        return HIDDEN
    return list(value) if isinstance(value, tuple) else value

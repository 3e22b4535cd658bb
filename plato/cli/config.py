"""`plato config`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import typer
from rich.text import Text

from plato.cli.options import AsJson, SettingsFile
from plato.cli.setting_sources import SourcedSettings, gather_settings
from plato.cli.tables import print_rows
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
    print_rows(_lines(rows))


def _lines(rows: dict[str, tuple[Any, str | None]]) -> Iterator[tuple[Text, ...]]:
    for section, names in groupby(rows, section_of):
        yield (Text(section, style="bold"),)
        for name in names:
            value, source = rows[name]
            style = "dim" if source is None else ""
            shown = value if isinstance(value, str) else json.dumps(value)
            cells = (f"  {name}", shown, source or DEFAULT)
            yield tuple(Text(cell, style=style) for cell in cells)


def _value(found: SourcedSettings, name: str) -> Any:
    value = getattr(found.settings, name)
    if value is not None and is_secret(Settings.model_fields[name]):
        return HIDDEN
    return list(value) if isinstance(value, tuple) else value

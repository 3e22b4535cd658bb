"""The commands, put together."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from plato import __version__
from plato.cli.ask import ask
from plato.cli.batch import batch
from plato.cli.bench import bench
from plato.cli.chat import chat
from plato.cli.config import config
from plato.cli.doctor import doctor
from plato.cli.errors import CommandLine
from plato.cli.key import key
from plato.cli.models import models
from plato.cli.options import AsJson
from plato.cli.plan import plan
from plato.cli.runs import runs, trace
from plato.cli.serve import serve
from plato.cli.tune import tune

PACKAGES = ("torch", "transformers", "ray", "vllm")
"""Whose versions matter beside Plato's own."""

app = typer.Typer(
    cls=CommandLine,
    help="Answers long questions faster by planning before decoding.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Questions": (ask, chat, plan, batch, trace),
    "Servers": (serve, doctor, bench, key),
    "Models": (tune,),
}
for _panel, _commands in _GROUPS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.add_typer(runs, name="runs", rich_help_panel="Questions")
app.add_typer(models, name="models", rich_help_panel="Models")
app.add_typer(config, name="config", rich_help_panel="Servers")


@app.command("version", rich_help_panel="Servers")
def show_versions(as_json: AsJson = False) -> None:
    """Print the versions of Plato and of what it computes with."""
    found = {"plato": __version__, "python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if as_json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name} {number}" for name, number in found.items()))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"plato {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version, and exit."
        ),
    ] = False,
) -> None:
    """Answers long questions faster by planning before decoding."""


def main() -> None:
    """Run the command."""
    app()

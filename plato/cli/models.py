"""`plato models`: the models on this machine."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from plato.cli.errors import UsageError
from plato.cli.options import AsJson
from plato.cli.tables import print_rows
from plato.settings import DEFAULT_MODEL, read_settings

Name = Annotated[str, typer.Argument(help="Name on the Hugging Face hub, or a local folder.")]
Revision = Annotated[
    str | None, typer.Option(help="Commit, tag or branch; default: the newest at the download.")
]

models = typer.Typer(help="The models on this machine.", no_args_is_help=True)


@models.command()
def ls(as_json: AsJson = False) -> None:
    """List the models that `plato serve` finds here, without a download."""
    from plato.models.local import local_models

    found = local_models(read_settings().cache_dir)
    if as_json:
        print(json.dumps([asdict(each) for each in found], default=str))
        return
    rows = [(each.name, each.revision[:12], _size(each.bytes), str(each.folder)) for each in found]
    print_rows(rows, "model", "revision", "size", "folder", right=("size",))
    if not found:
        Console(stderr=True).print("none; fetch one with: plato models pull", style="dim")


@models.command()
def pull(name: Name = DEFAULT_MODEL, revision: Revision = None) -> None:
    """Download a model, and print its folder."""
    from plato.models import resolve_model

    print(resolve_model(name, read_settings().cache_dir, revision))


@models.command()
def show(name: Name = DEFAULT_MODEL, as_json: AsJson = False) -> None:
    """Describe a model on this machine: size, context, type of weights, sampling."""
    from plato.models.local import describe, find_local

    folder = find_local(name, read_settings().cache_dir)
    if folder is None:
        raise UsageError(f"{name} is not on this machine; fetch it with: plato models pull {name}")
    facts = describe(name, folder)
    if as_json:
        print(json.dumps(facts))
        return
    facts["bytes"] = _size(facts["bytes"])
    print_rows((fact, str(value)) for fact, value in facts.items())


@models.command()
def rm(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a model from this machine's caches; a folder of your own is not touched."""
    from plato.models.local import local_models

    found = {
        each.root: each.bytes
        for each in local_models(read_settings().cache_dir)
        if each.name == name
    }
    if not found:
        raise UsageError(f"{name} is not in the caches of this machine; see: plato models ls")
    size = _size(sum(found.values()))
    if not yes:
        typer.confirm(f"Delete {name} ({size})?", abort=True)
    for root in found:
        shutil.rmtree(root)
    print(f"deleted {name} ({size})")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

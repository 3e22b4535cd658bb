"""The commands, of the typer application `plato.cli.app`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from plato.cli import app
from plato_docs.markdown import code, sections, table


def commands() -> str:
    """All commands with their arguments and options."""
    return sections(*_described(get_command(app), "plato", 2))


def _described(command: Any, path: str, level: int) -> Iterator[str]:
    context = command.make_context(path, [], resilient_parsing=True)
    subcommands = getattr(command, "commands", {})
    if path != "plato":
        yield f"{'#' * level} {path}"
    yield (command.help or "").strip().replace("\b", "")
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{path} {usage}\n```"
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    yield _parameters("argument", arguments, context)
    yield _parameters("option", [one for one in options if not _is_setting(one)], context)
    if any(map(_is_setting, options)):
        yield "And a flag for each of the [settings](settings.md): `--max-nodes` for `max_nodes`."
    for name, subcommand in subcommands.items():
        if not subcommand.hidden:
            yield from _described(subcommand, f"{path} {name}", min(level + (path != "plato"), 4))


def _parameters(kind: str, parameters: Any, context: Any) -> str:
    """A table of what `--help` says of the parameters; hidden ones have no record."""
    records = [one.get_help_record(context) for one in parameters]
    rows = [[code(record[0]), _plain(record[1])] for record in records if record is not None]
    return table([kind, "meaning"], rows) if rows else ""


def _is_setting(option: Any) -> bool:
    return (option.rich_help_panel or "").startswith("Settings: ")


def _plain(text: str) -> str:
    """Help without the escapes that terminals need, and its remarks in brackets as text."""
    return re.sub(r"\\?\[((?:default|env var|required)[^\]]*)\]", r"(\1)", text)

"""Options that several commands have."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from plato.cli.errors import UsageError
from plato.client import DEFAULT_URL
from plato.runs import Mode

Url = Annotated[
    str,
    typer.Option(envvar="PLATO_URL", help="The server."),
]
FoundUrl = Annotated[
    str | None,
    typer.Option(
        envvar="PLATO_URL", help=f"The server; default: {DEFAULT_URL}, else in this process."
    ),
]
ApiKey = Annotated[str | None, typer.Option(envvar="PLATO_API_KEY", help="The server's API key.")]
Local = Annotated[bool, typer.Option("--local", help="Answer in this process, without a server.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, also of an error (on stderr).")
]
AnswerMode = Annotated[
    Mode,
    typer.Option(
        help="How to answer: `plato` plans parts that may need each other, `skeleton` independent "
        "ones, `sequential` does not plan, `auto` lets the model decide."
    ),
]
System = Annotated[
    str | None, typer.Option("--system", "-s", help="What the model is told beforehand.")
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="KEY=VALUE",
        help="A field of the request, such as temperature=0.7 or top_p=0.9; repeat it for several.",
    ),
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Seed of the sampling: the same one, the same answer.")
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Maximum answer tokens.")]
SettingsFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file of settings, as for `plato serve`.")
]


def request_fields(
    given: Iterable[str], *, seed: int | None = None, max_tokens: int | None = None
) -> dict[str, Any]:
    """Fields of a request; values are JSON, else text. Raises `UsageError`."""
    fields: dict[str, Any] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"-o {item} is no option of a request; write KEY=VALUE")
        try:
            fields[key] = json.loads(value)
        except ValueError:
            fields[key] = value
    if seed is not None:
        fields["seed"] = seed
    if max_tokens is not None:
        fields["max_tokens"] = max_tokens
    return fields


def messages_of(question: str, system: str | None) -> list[dict[str, str]]:
    """A conversation that begins with this question."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": question}]

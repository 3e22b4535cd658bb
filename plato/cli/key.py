"""`plato key`."""

from __future__ import annotations

from typing import Annotated

import typer

from plato.api.access.keys import hash_key, new_key, read_entry
from plato.cli.errors import UsageError
from plato.errors import SettingsError


def key(
    tenant: Annotated[str, typer.Argument(help="Name of whoever gets the key.")],
) -> None:
    """Make an API key; prints the key, and the line for the server's key file.

    Only the hash is in that line (`plato serve --api-keys-file`); the key is shown once.
    """
    made = new_key()
    try:
        hashed, name = read_entry(f"{tenant}={hash_key(made)}", plain=False)
    except SettingsError as error:
        raise UsageError(error.message) from error
    print(made)
    print(f"{name}={hashed}")

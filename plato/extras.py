"""Packages that only a part of Plato needs, and that an installation can lack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from plato.errors import SettingsError

OWN = ("plato", "deployments")


@contextmanager
def needs(extra: Literal["torch", "serve"]) -> Iterator[None]:
    """Within the block a missing package is a `SettingsError` that says how to install `extra`."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in OWN:
            raise
        raise SettingsError(
            f"this needs {package}, which is not installed; pip install 'plato-serve[{extra}]'"
        ) from error

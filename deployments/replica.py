"""What every replica does first."""

from __future__ import annotations

from ray import serve

from plato.logs import configure_logs
from plato.settings import Settings

BEATS = 4
"""Signs of life in the time after which a silent process counts as lost."""


def start_replica(settings: Settings) -> str:
    """Set up the logs; returns the replica's name, unique in the application."""
    context = serve.get_replica_context()
    name: str = context.replica_id.unique_id
    configure_logs(settings.log_level, deployment=context.deployment, replica=name)
    return name

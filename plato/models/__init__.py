"""Model download: resolves a name to a local folder that loads quickly."""

from plato.models.progress import Progress
from plato.models.resolve import resolve_model

__all__ = ["Progress", "resolve_model"]

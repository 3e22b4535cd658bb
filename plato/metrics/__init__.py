"""What operators can see: the table of metrics, and what is recorded into them."""

from plato.metrics.recorder import NO_METRICS, Kind, Metric, Recorder, Totals
from plato.metrics.table import METRICS, Role, metrics_of

__all__ = ["METRICS", "NO_METRICS", "Kind", "Metric", "Recorder", "Role", "Totals", "metrics_of"]

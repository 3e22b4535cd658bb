"""The metrics, of `plato/metrics/table.py`."""

from __future__ import annotations

from plato.metrics import METRICS
from plato.metrics.table import Role, metrics_of
from plato_docs.markdown import code, table


def metrics() -> str:
    """All metrics, in the order of their declaration."""
    roles = {
        name: [role for role in Role if metric in metrics_of(role)]
        for name, metric in METRICS.items()
    }
    return table(
        ["metric", "kind", "labels", "recorded by", "meaning"],
        (
            [
                code(name),
                metric.kind,
                "; ".join(
                    f"{code(label)}: {', '.join(map(code, values))}"
                    for label, values in metric.labels.items()
                ),
                ", ".join(roles[name]),
                metric.help,
            ]
            for name, metric in METRICS.items()
        ),
    )

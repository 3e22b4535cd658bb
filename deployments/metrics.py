"""Metrics through Ray: replicas record, and the Ray agent of each node exports.

Ray prefixes names with `ray_`, and Serve adds the labels `application`, `deployment` and `replica`.
Processes report values at Ray's own interval (`metrics_report_interval_ms`, 10 s by default), so
frequent sampling only makes gauges more current.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

from ray import serve
from ray.serve import metrics

from plato.metrics import Kind, Metric, Recorder, Role, metrics_of
from plato.metrics.sampling import sample

ROLES = {
    "Ingress": Role.INGRESS,
    "PlannerService": Role.PLANNER,
    "SchedulerService": Role.SCHEDULER,
    "Decoder": Role.DECODER,
}
"""By deployment."""


class RayRecorder(Recorder):
    """Records with `ray.serve.metrics`, in a replica."""

    def __init__(self, role: Role) -> None:
        """Declare all metrics of a role, with its counters at 0.

        Prometheus' `increase` ignores the first value of a series: without the zeros, the first
        error of a kind would not raise an alert.
        """
        self._metrics = {metric.name: _declared(metric) for metric in metrics_of(role)}
        for metric in metrics_of(role):
            if metric.kind is Kind.COUNTER:
                for labels in metric.series():
                    # `inc` rejects 0.
                    self._metrics[metric.name]._record(0.0, labels)

    def write(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """Record one measurement."""
        made = self._metrics[metric.name]
        match metric.kind:
            case Kind.COUNTER:
                made.inc(value, labels)
            case Kind.GAUGE:
                made.set(value, labels)
            case Kind.HISTOGRAM:
                made.observe(value, labels)


def _declared(metric: Metric) -> Any:
    """The Ray metric for `metric`."""
    labels = tuple(metric.labels)
    match metric.kind:
        case Kind.COUNTER:
            return metrics.Counter(metric.name, metric.help, labels)
        case Kind.GAUGE:
            return metrics.Gauge(metric.name, metric.help, labels)
        case Kind.HISTOGRAM:
            return metrics.Histogram(metric.name, metric.help, list(metric.buckets), labels)


@cache
def replica_recorder() -> RayRecorder:
    """The recorder of this replica; one per process."""
    return RayRecorder(ROLES[serve.get_replica_context().deployment])


def start_sampling(*samplers: Callable[[], None]) -> asyncio.Task[None]:
    """Call the samplers, and sample the process itself, at an interval until the task is cancelled.

    Keep a reference to the task: event loops keep only weak ones.
    """
    sampling = sample(replica_recorder(), *samplers)
    return asyncio.create_task(sampling, name="sample-metrics")

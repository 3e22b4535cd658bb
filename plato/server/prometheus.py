"""Metrics of this process, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from plato.metrics import METRICS, Kind, Metric, Recorder

REPLICA = "replica"
"""Label that tells the engines of one process apart."""


class PrometheusMetrics:
    """All metrics of the table, with the label `replica` in addition to their own."""

    def __init__(self) -> None:
        # Otherwise every series has a second one with its creation time.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._metrics = {name: self._declare(metric) for name, metric in METRICS.items()}

    def recorder(self, replica: str, metrics: Iterable[Metric]) -> Recorder:
        """A recorder of some metrics, whose counters start at 0.

        Prometheus' `increase` ignores the first value of a series.
        """
        for metric in metrics:
            if metric.kind is Kind.COUNTER:
                for labels in metric.series():
                    self._metrics[metric.name].labels(**{REPLICA: replica}, **labels)
        return _PrometheusRecorder(self._metrics, replica)

    async def show(self, request: Request) -> Response:
        """The current values, for `GET /metrics`."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def _declare(self, metric: Metric) -> Counter | Gauge | Histogram:
        labels = (REPLICA, *metric.labels)
        match metric.kind:
            case Kind.COUNTER:
                return Counter(metric.name, metric.help, labels, registry=self._registry)
            case Kind.GAUGE:
                return Gauge(metric.name, metric.help, labels, registry=self._registry)
            case Kind.HISTOGRAM:
                return Histogram(
                    metric.name,
                    metric.help,
                    labels,
                    buckets=metric.buckets,
                    registry=self._registry,
                )


class _PrometheusRecorder(Recorder):
    def __init__(self, metrics: dict[str, Counter | Gauge | Histogram], replica: str) -> None:
        self._metrics = metrics
        self._replica = replica

    def write(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """Record one measurement."""
        series = self._metrics[metric.name].labels(**{REPLICA: self._replica}, **labels)
        if isinstance(series, Counter):
            series.inc(value)
        elif isinstance(series, Gauge):
            series.set(value)
        else:
            series.observe(value)

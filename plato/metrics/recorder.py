"""The recorder interface: the library records metrics with it, independent of the exporter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product

OTHER = "other"
"""Label value for undeclared values."""


class Kind(StrEnum):
    """Prometheus metric types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, named by Prometheus conventions: unit suffix, `_total` for counters."""

    name: str
    kind: Kind
    help: str
    """One sentence, with the unit if the name has none."""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Labels with all their possible values except `other`. Undeclared values are recorded as
    `other`, so neither clients nor errors can create an unbounded number of series."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending, without infinity."""

    def series(self) -> Iterator[dict[str, str]]:
        """Every combination of declared label values."""
        for values in product(*self.labels.values()):
            yield dict(zip(self.labels, values, strict=True))

    def bounded(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Labels restricted to declared values. Raises `ValueError` if the label names differ."""
        if labels.keys() != self.labels.keys():
            raise ValueError(f"{self.name} has labels {sorted(self.labels)}, not {sorted(labels)}")
        return {
            name: str(value) if value in self.labels[name] else OTHER
            for name, value in labels.items()
        }


class Recorder(ABC):
    """Records measurements. Cheap and thread-safe.

    Use it for events (a run ended, a node has its first token), never for single tokens: counts per
    token or step are totalled by their owner and recorded at an interval (`Totals`).
    """

    def add(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Increase a counter. An amount of 0 is not recorded."""
        self._take(metric, Kind.COUNTER, amount, labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._take(metric, Kind.GAUGE, value, labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add one value to a histogram."""
        self._take(metric, Kind.HISTOGRAM, value, labels)

    def _take(self, metric: Metric, kind: Kind, value: float, labels: Mapping[str, str]) -> None:
        if metric.kind is not kind:
            raise ValueError(f"{metric.name} is a {metric.kind}, not a {kind}")
        if kind is Kind.COUNTER:
            if value < 0:
                raise ValueError(f"{metric.name} cannot go down (by {-value:g})")
            if value == 0:
                return
        self.write(metric, value, metric.bounded(labels))

    @abstractmethod
    def write(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """Record one validated measurement."""


class _NoMetrics(Recorder):
    """Records nothing."""

    def _take(self, metric: Metric, kind: Kind, value: float, labels: Mapping[str, str]) -> None:
        pass

    def write(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """Do nothing."""


NO_METRICS: Recorder = _NoMetrics()
"""A recorder that discards everything."""


class Totals:
    """Converts running totals into increments of counters."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._last: dict[tuple[str, tuple[str, ...]], float] = {}
        """Last total by metric and label values; bounded by the table."""

    def record(self, metric: Metric, total: float, **labels: str) -> None:
        """Increase the counter to `total`. A total below the last one has restarted at 0."""
        key = metric.name, tuple(labels[name] for name in sorted(labels))
        last = self._last.get(key, 0.0)
        self._last[key] = total
        self._recorder.add(metric, total - last if total >= last else total, **labels)

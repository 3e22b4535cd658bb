"""Where measurements go: an interface that the library writes to, whatever exports it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product

OTHER = "other"
"""Label value of whatever is not declared."""


class Kind(StrEnum):
    """Prometheus' kinds of metrics."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, named by Prometheus' conventions: the unit at the end, `_total` for counters."""

    name: str
    kind: Kind
    help: str
    """One sentence, with the unit if the name has none."""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Every label with all the values it can have, but for `other`. What is not declared here is
    recorded as `other`, so no client and no error can make series without bound."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, rising, without infinity."""

    def series(self) -> Iterator[dict[str, str]]:
        """Every combination of declared label values."""
        for values in product(*self.labels.values()):
            yield dict(zip(self.labels, values, strict=True))

    def bounded(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Labels as declared. Raises `ValueError` where one is missing or too many."""
        if labels.keys() != self.labels.keys():
            raise ValueError(f"{self.name} has labels {sorted(self.labels)}, not {sorted(labels)}")
        return {
            name: str(value) if value in self.labels[name] else OTHER
            for name, value in labels.items()
        }


class Recorder(ABC):
    """Takes measurements. Cheap, and safe to call from any thread.

    For events (a run has ended, a part has its first token), never for single tokens: what is
    counted per token or step is summed by its owner and recorded at an interval (`Totals`).
    """

    def add(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Count up. Nothing is recorded for an amount of 0."""
        self._take(metric, Kind.COUNTER, amount, labels)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Say how things stand."""
        self._take(metric, Kind.GAUGE, value, labels)

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Add one value to a distribution."""
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
        """Record one measurement, which has been checked."""


class _NoMetrics(Recorder):
    """Records nothing."""

    def _take(self, metric: Metric, kind: Kind, value: float, labels: Mapping[str, str]) -> None:
        pass

    def write(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """Do nothing."""


NO_METRICS: Recorder = _NoMetrics()
"""For whoever does not ask for metrics."""


class Totals:
    """Turns totals that somebody else keeps into what a counter has to go up by."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._last: dict[tuple[str, tuple[str, ...]], float] = {}
        """By metric and label values: bounded by the table."""

    def record(self, metric: Metric, total: float, **labels: str) -> None:
        """Count up to `total`. One that is lower than the last began again at 0."""
        key = metric.name, tuple(labels[name] for name in sorted(labels))
        last = self._last.get(key, 0.0)
        self._last[key] = total
        self._recorder.add(metric, total - last if total >= last else total, **labels)

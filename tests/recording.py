"""A recorder that a test can read."""

from __future__ import annotations

from plato.metrics import Kind, Metric, Recorder


class MemoryRecorder(Recorder):
    """Keeps every measurement."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}

    def write(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """Keep it; of gauges only the last counts."""
        values = self._values.setdefault((metric.name, tuple(sorted(labels.items()))), [])
        if metric.kind is Kind.GAUGE:
            values.clear()
        values.append(value)

    def values(self, metric: Metric, **labels: str) -> list[float]:
        """What was recorded into one series."""
        return self._values.get((metric.name, tuple(sorted(labels.items()))), [])

    def total(self, metric: Metric, **labels: str) -> float:
        """The sum of a series: what a counter shows."""
        return sum(self.values(metric, **labels))

    def totals(self, metric: Metric, label: str) -> dict[str, float]:
        """The sums of all series of a metric with one label, by its values."""
        return {
            dict(labels)[label]: sum(values)
            for (name, labels), values in self._values.items()
            if name == metric.name
        }

"""Metrics as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

Series = dict[str, str]


class Scrape:
    """One scrape of Ray's endpoint."""

    def __init__(self, text: str) -> None:
        self.kinds: dict[str, str] = {}
        """Kind of every family, by the name that queries use."""
        self.helps: dict[str, str] = {}
        self._samples: dict[str, list[tuple[Series, float]]] = {}
        for family in text_string_to_metric_families(text):
            # The parser takes the suffix of counters off.
            name = f"{family.name}_total" if family.type == "counter" else family.name
            self.kinds[name], self.helps[name] = family.type, family.documentation
            for sample in family.samples:
                self._samples.setdefault(sample.name, []).append((sample.labels, sample.value))

    def series(self, name: str) -> list[Series]:
        """The labels of every series with this name."""
        return [labels for labels, _ in self._samples.get(name, ())]

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series with this name and these labels."""
        return sum(
            value for found, value in self._samples.get(name, ()) if labels.items() <= found.items()
        )

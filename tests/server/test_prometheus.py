"""Metrics of one process as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from plato.metrics import METRICS, Kind, Role, metrics_of
from plato.metrics.table import FIRST_TEXT_SECONDS, RUNS, SEQUENCES
from plato.server.prometheus import PrometheusMetrics

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def shown(metrics: PrometheusMetrics) -> Series:
    app = Starlette()
    app.add_route("/metrics", metrics.show)
    text = TestClient(app).get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_measurements_are_shown_with_their_labels_and_replica() -> None:
    metrics = PrometheusMetrics()
    one, two = (metrics.recorder(name, METRICS.values()) for name in ("one", "two"))
    one.add(RUNS, 2, mode="plato", outcome="done")
    one.set(SEQUENCES, 3, state="running")
    two.set(SEQUENCES, 4, state="running")
    one.observe(FIRST_TEXT_SECONDS, 0.2, mode="plato")
    series = shown(metrics)
    done = (("mode", "plato"), ("outcome", "done"), ("replica", "one"))
    assert series["plato_runs_total", done] == 2
    assert series["plato_sequences", (("replica", "one"), ("state", "running"))] == 3
    assert series["plato_sequences", (("replica", "two"), ("state", "running"))] == 4
    count = f"{FIRST_TEXT_SECONDS.name}_count"
    assert series[count, (("mode", "plato"), ("replica", "one"))] == 1


def test_counters_of_a_recorder_start_at_zero() -> None:
    metrics = PrometheusMetrics()
    metrics.recorder("engine", metrics_of(Role.DECODER))
    expected = {
        (metric.name, tuple(sorted({**labels, "replica": "engine"}.items())))
        for metric in metrics_of(Role.DECODER)
        if metric.kind is Kind.COUNTER
        for labels in metric.series()
    }
    assert shown(metrics) == dict.fromkeys(expected, 0.0)

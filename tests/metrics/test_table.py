"""The table keeps Prometheus' conventions, and knows every error that there is."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from plato import errors
from plato.api import errors as api_errors
from plato.cli.errors import UsageError
from plato.client.errors import UnreachableError
from plato.errors import PlatoError
from plato.metrics import METRICS, Kind, Metric, Role, metrics_of, table
from plato.runs import Mode

UNITS = ("_seconds", "_bytes", "_tokens")
MOST_SERIES = 30
"""Of one metric in one process."""

each = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())


@each
def test_names_are_conventional(metric: Metric) -> None:
    assert re.fullmatch(r"plato_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    # A unit stands at the end, before `_total`.
    stem = metric.name.removesuffix("_total")
    assert not any(unit in stem.removesuffix(unit) for unit in UNITS)
    # Ray's suffixes of histograms, and its label names in lower case.
    assert not metric.name.endswith(("_count", "_sum", "_bucket"))
    assert not set(metric.labels) & {"application", "deployment", "replica", "route", "le"}


@each
def test_every_metric_is_described_in_a_sentence(metric: Metric) -> None:
    assert metric.help[0].isupper() or metric.help[0].isdigit()
    assert metric.help.endswith(".")


@each
def test_buckets_rise_and_only_histograms_have_them(metric: Metric) -> None:
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    # Ray refuses other ones.
    assert all(bound > 0 for bound in metric.buckets)


@each
def test_series_are_few(metric: Metric) -> None:
    assert len(list(metric.series())) <= MOST_SERIES


@each
def test_somebody_records_it(metric: Metric) -> None:
    assert any(metric in metrics_of(role) for role in Role)


def test_modes_are_those_of_runs() -> None:
    assert set(table.MODES) == set(Mode)


def test_every_error_that_a_client_can_get_has_a_label_of_its_own() -> None:
    codes = {kind.code for kind in _kinds(PlatoError)} | set(api_errors._OWN_TYPES)
    codes -= {
        None,
        # Of programs that ask a server.
        UsageError.code,
        UnreachableError.code,
        # What keeps a server from starting: no client hears of it.
        errors.ModelError.code,
        errors.SettingsError.code,
        # The client gets the upstream's answer.
        errors.UnplannedError.code,
    }
    assert codes <= set(table.REQUEST_ERRORS)


def _kinds(base: type[PlatoError]) -> Iterator[type[PlatoError]]:
    yield base
    for kind in base.__subclasses__():
        if kind.__module__.startswith("plato."):
            yield from _kinds(kind)

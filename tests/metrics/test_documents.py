"""Dashboard, alert rules and handbook speak of the metrics that there are."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from plato.metrics import METRICS, Kind, Metric
from plato.metrics.recorder import OTHER

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "k8s" / "monitoring"
HANDBOOK = (ROOT / "docs" / "operations.md").read_text()
SERVE = {"application", "deployment", "replica"}
"""Labels that Serve adds."""
DEPLOYMENTS = {"Ingress", "PlannerService", "SchedulerService", "Decoder"}
SELECTOR = re.compile(r"ray_(plato_[a-z_]+?)(_bucket)?(?:\{([^}]*)\}|(?=[^a-z_]|$))")
MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')

each = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())


def load(name: str) -> ModuleType:
    """A script of the folder, as a module."""
    spec = importlib.util.spec_from_file_location(f"monitoring_{name}", MONITORING / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check, generate = load("check"), load("generate")
EXPRESSIONS = check.expressions()
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
RULES = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
ALERTS = [rule["alert"] for group in RULES["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda expression: expression.where)
def test_an_expression_asks_for_what_is_declared(expression: Any) -> None:
    found = list(SELECTOR.finditer(expression.text))
    assert len(found) == expression.text.count("ray_plato_")
    for match in found:
        name, bucket, matchers = match.groups()
        metric = METRICS[name]
        # Sums of histograms are estimates, see the handbook.
        assert bool(bucket) == (metric.kind is Kind.HISTOGRAM)
        for label, how, value in MATCHER.findall(matchers or ""):
            if label in SERVE:
                assert label != "deployment" or value in DEPLOYMENTS
                continue
            values = value.split("|") if how == "=~" else [value]
            assert set(values) <= set(metric.labels[label]) - {OTHER}
        # What it is grouped by is there.
        for grouped in re.findall(r"by \(([^)]*)\)", expression.text):
            assert set(re.split(r",\s*", grouped)) <= {*metric.labels, *SERVE, "le"}


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda expression: expression.where)
def test_a_counter_is_asked_for_its_rate(expression: Any) -> None:
    for match in SELECTOR.finditer(expression.text):
        gauge = METRICS[match[1]].kind is Kind.GAUGE
        before = expression.text[: match.start()]
        assert before.endswith(("rate(", "increase(")) != gauge


@each
def test_every_metric_is_on_the_dashboard(metric: Metric) -> None:
    shown = {
        match[1]
        for expression in check.dashboard_expressions(DASHBOARD)
        for match in SELECTOR.finditer(expression.text)
    }
    assert metric.name in shown


@each
def test_the_handbook_says_what_a_metric_tells(metric: Metric) -> None:
    (row,) = re.findall(rf"^\| `{metric.name}` \|(.*)\|(.*)\|$", HANDBOOK, re.MULTILINE)
    assert row[0].strip()


def test_the_handbook_speaks_of_no_other_metric() -> None:
    named = set(re.findall(r"`(plato_[a-z_]+)`", HANDBOOK))
    assert named == set(METRICS)


def test_every_alert_has_a_section_in_the_handbook() -> None:
    assert re.findall(r"^### (Plato\w+)$", HANDBOOK, re.MULTILINE) == ALERTS
    for group in RULES["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert rule["annotations"]["summary"]


def test_what_is_generated_is_up_to_date() -> None:
    for path, text in generate.written().items():
        assert path.read_text() == text, "run python k8s/monitoring/generate.py"


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (at["x"] + right, at["y"] + down) for right in range(at["w"]) for down in range(at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("sum(x) > 3", "sum(x) > bool 3"),
        ("a / b >= 0.5 and c < 1", "a / b >= bool 0.5 and c < bool 1"),
        ('min(x{a=~"b",c!="d"}) == 0', 'min(x{a=~"b",c!="d"}) == bool 0'),
        ("absent(x)", "x"),
        (
            'rate(x{application=~"$application"}[$__rate_interval])',
            'rate(x{application=~".*"}[1m])',
        ),
    ],
)
def test_an_expression_can_be_asked_for_whether_an_alert_fires_or_not(
    text: str, query: str
) -> None:
    assert check.Expression("somewhere", text).query == query

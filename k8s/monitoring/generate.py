"""Writes the Grafana dashboard, and the alert rules as the operator's PrometheusRule.

    python k8s/monitoring/generate.py

Edit the panels here and the rules in alerts.yaml; a test keeps what is written up to date.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
RULES = HERE / "alerts.yaml"
DASHBOARD = HERE / "dashboard.json"
PROMETHEUS_RULE = HERE / "prometheus-rule.yaml"

WIDTH, HEIGHT = 8, 7
"""Of a panel, in Grafana's grid of 24 columns."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
HEADER = "# Written by k8s/monitoring/generate.py from alerts.yaml.\n"


@dataclass(frozen=True)
class Panel:
    """Some expressions over time. `queries` are pairs of a legend and an expression."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str = ""
    stacked: bool = False


def rate(metric: str, by: str = "", **labels: str) -> str:
    """How much of a counter comes in a second."""
    wanted = ",".join([_scope(), *(f'{name}=~"{value}"' for name, value in labels.items())])
    summed = f"rate(ray_plato_{metric}_total{{{wanted}}}[$__rate_interval])"
    return f"sum by ({by}) ({summed})" if by else f"sum({summed})"


def quantile(share: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram."""
    buckets = f"rate(ray_plato_{metric}_bucket{{{_scope()}}}[$__rate_interval])"
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) ({buckets}))"


def gauge(metric: str, function: str = "sum", by: str = "", **labels: str) -> str:
    """A gauge over all replicas."""
    wanted = ",".join([_scope(), *(f'{name}="{value}"' for name, value in labels.items())])
    grouped = f" by ({by}) " if by else ""
    return f"{function}{grouped}(ray_plato_{metric}{{{wanted}}})"


def _scope() -> str:
    return 'application=~"$application"'


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "What clients see",
        (
            Panel(
                "Runs",
                "reqps",
                (("{{mode}} {{outcome}}", rate("runs", "mode, outcome")),),
                stacked=True,
            ),
            Panel(
                "Time to first text",
                "s",
                tuple(
                    (
                        f"p{share * 100:g} {{{{mode}}}}",
                        quantile(share, "time_to_first_text_seconds", "mode"),
                    )
                    for share in (0.5, 0.95)
                ),
            ),
            Panel(
                "Answer latency",
                "s",
                tuple(
                    (f"p{share * 100:g} {{{{mode}}}}", quantile(share, "answer_seconds", "mode"))
                    for share in (0.5, 0.95)
                ),
            ),
            Panel(
                "Tokens",
                "short",
                (
                    ("shown in answers", rate("answer_tokens")),
                    ("decoded", rate("decoded_tokens")),
                ),
                "Decoded tokens that no answer shows are plans, cancelled parts and runs.",
            ),
            Panel(
                "Errors told to clients", "reqps", (("{{code}}", rate("request_errors", "code")),)
            ),
            Panel(
                "Runs in flight and waiting",
                "short",
                (
                    ("in flight", gauge("runs_in_flight")),
                    ("waiting", gauge("runs_waiting")),
                ),
            ),
        ),
    ),
    (
        "Planning",
        (
            Panel("Fallbacks", "reqps", (("{{reason}}", rate("fallbacks", "reason")),)),
            Panel(
                "Plan time",
                "s",
                (("p50", quantile(0.5, "plan_seconds")), ("p95", quantile(0.95, "plan_seconds"))),
            ),
            Panel(
                "Nodes of a plan",
                "short",
                (("p50", quantile(0.5, "plan_nodes")), ("p95", quantile(0.95, "plan_nodes"))),
            ),
            Panel("Nodes", "short", (("{{outcome}}", rate("nodes", "outcome")),)),
            Panel(
                "Run time",
                "s",
                (("p95 {{mode}}", quantile(0.95, "run_seconds", "mode")),),
                "From admission on; what answer latency has more is waiting and failing over.",
            ),
            Panel("Failed runs", "reqps", (("{{code}}", rate("run_errors", "code")),)),
        ),
    ),
    (
        "Decoders",
        (
            Panel(
                "Time from dispatch to first token",
                "s",
                tuple(
                    (f"p{share * 100:g}", quantile(share, "node_first_token_seconds"))
                    for share in (0.5, 0.95)
                ),
            ),
            Panel(
                "Inter-token time",
                "s",
                tuple(
                    (f"p{share * 100:g}", quantile(share, "inter_token_seconds"))
                    for share in (0.5, 0.95)
                ),
            ),
            Panel(
                "Batch width",
                "short",
                (
                    (
                        "{{replica}}",
                        f"{rate('engine_step_sequences', 'replica')} / "
                        f"{rate('engine_steps', 'replica')}",
                    ),
                    ("useful", gauge("useful_width", "max")),
                ),
                "Sequences that get a token in a step, and up to how many decode faster together.",
            ),
            Panel(
                "Engine busy",
                "percentunit",
                (("{{replica}}", rate("engine_busy_seconds", "replica")),),
            ),
            Panel(
                "Sequences",
                "short",
                (("{{replica}} {{state}}", gauge("sequences", "sum", "replica, state")),),
            ),
            Panel(
                "Prompt tokens that wait",
                "short",
                (("{{replica}}", gauge("prefill_queue_tokens", "sum", "replica")),),
            ),
        ),
    ),
    (
        "KV and reuse",
        (
            Panel(
                "Prompt tokens",
                "short",
                (("{{kv}}", rate("prompt_tokens", "kv")),),
                stacked=True,
            ),
            Panel(
                "Reuse",
                "percentunit",
                (
                    (
                        "cached of all prompt tokens",
                        f"{rate('prompt_tokens', kv='cached')} / {rate('prompt_tokens')}",
                    ),
                    (
                        "found of what was predicted",
                        f"1 - {rate('reuse_missed_tokens')} / {rate('reuse_predicted_tokens')}",
                    ),
                    (
                        "found over predicted",
                        f"{rate('reuse_actual_tokens')} / {rate('reuse_predicted_tokens')}",
                    ),
                ),
            ),
            Panel(
                "KV memory",
                "bytes",
                (
                    ("used or cached", gauge("kv_used_bytes")),
                    ("free or evictable", gauge("kv_available_bytes")),
                    ("capacity", gauge("kv_capacity_bytes")),
                ),
            ),
            Panel(
                "Eviction and preemption",
                "short",
                (
                    ("evicted bytes/s", rate("kv_evicted_bytes")),
                    ("preemptions/s", rate("preemptions")),
                    ("tokens recomputed/s", rate("recomputed_tokens")),
                ),
            ),
            Panel(
                "Moved KV",
                "short",
                (
                    ("tokens/s", rate("kv_imported_tokens")),
                    ("placed to {{kv}}", rate("placements", "kv")),
                    ("came: {{outcome}}", rate("kv_imports", "outcome")),
                ),
            ),
            Panel("Time to move KV", "s", (("p95", quantile(0.95, "kv_import_seconds")),)),
        ),
    ),
    (
        "Recovery and processes",
        (
            Panel(
                "Started again",
                "short",
                (
                    ("parts: {{reason}}", rate("node_retries", "reason")),
                    ("plans", rate("plan_retries")),
                    ("runs taken over", rate("runs_taken_over")),
                ),
            ),
            Panel(
                "Suspected decoders",
                "short",
                (
                    ("avoided now", gauge("decoders_avoided", "max")),
                    ("silences/s", rate("decoder_silences")),
                    ("snapshots/s", rate("kv_snapshots")),
                ),
            ),
            Panel(
                "Context store",
                "short",
                (
                    (
                        "answers ({{deployment}})",
                        gauge("context_store_available", "min", "deployment"),
                    ),
                    ("writes waiting", gauge("context_store_writes_pending")),
                    ("writes lost/s", rate("context_store_writes_dropped")),
                    ("runs without it/s", rate("runs_degraded")),
                ),
            ),
            Panel(
                "CPU of the busiest process",
                "percentunit",
                (
                    (
                        "{{deployment}}",
                        "max by (deployment) (rate(ray_plato_process_cpu_seconds_total"
                        f"{{{_scope()}}}[$__rate_interval]))",
                    ),
                ),
                "Ingresses, planners and schedulers have one core at most.",
            ),
            Panel(
                "Event loop lag, p99",
                "s",
                (("{{deployment}}", quantile(0.99, "event_loop_lag_seconds", "deployment")),),
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's model."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
                "panels": [],
            }
        )
        top += 1
        for place, panel in enumerate(row):
            at = {"x": place * WIDTH % 24, "y": top + place * WIDTH // 24 * HEIGHT}
            panels.append(_panel(panel, len(panels) + 1, at | {"w": WIDTH, "h": HEIGHT}))
        top += -(-len(row) * WIDTH // 24) * HEIGHT
    return {
        "title": "Plato",
        "uid": "plato",
        "tags": ["plato", "ray"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource(), _application()]},
        "panels": panels,
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }


def _application() -> dict[str, Any]:
    values = "label_values(ray_plato_runs_in_flight, application)"
    return {
        "name": "application",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": values, "refId": "applications"},
        "definition": values,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": at,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": {
                    "fillOpacity": 20 if panel.stacked else 0,
                    "showPoints": "never",
                    "stacking": stacking,
                },
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": expression,
                "legendFormat": legend,
            }
            for index, (legend, expression) in enumerate(panel.queries)
        ],
    }


def prometheus_rule() -> dict[str, Any]:
    """The rules as the Prometheus operator wants them."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "plato", "labels": {"app.kubernetes.io/part-of": "plato"}},
        "spec": yaml.safe_load(RULES.read_text()),
    }


def written() -> dict[Path, str]:
    """Every file that this module writes, with its text."""
    rule = yaml.safe_dump(prometheus_rule(), sort_keys=False, width=100)
    return {
        DASHBOARD: json.dumps(dashboard(), indent=1) + "\n",
        PROMETHEUS_RULE: HEADER + rule,
    }


if __name__ == "__main__":
    for path, text in written().items():
        path.write_text(text)

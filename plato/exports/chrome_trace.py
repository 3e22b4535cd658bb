"""A run as a trace for `chrome://tracing` and ui.perfetto.dev.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from plato.exports.recording import Recording

PROCESS = 1
PLAN = 0
"""The thread of the plan; a part's is its number."""


def to_chrome_trace(recording: Recording) -> dict[str, Any]:
    """A process for the run, and in it a thread for the plan and for each part."""
    run, plan = recording.run, recording.run.plato.plan
    name = f"{run.plato.mode}: {run.question}"
    events = [_named("process_name", PLAN, name), _named("thread_name", PLAN, "plan")]
    if plan.tokens:
        events += _span(PLAN, "plan", plan.started_s, plan.finished_s, asdict(plan))
    for node in recording.nodes:
        taken_s = recording.taken_s(node.number) or node.started_s
        events += [
            _named("thread_name", node.number, f"{node.number} {node.title}"),
            *_span(node.number, "waits", node.planned_s, taken_s),
            *_span(node.number, "prefill", taken_s, node.first_token_s),
            *_span(node.number, "decode", node.first_token_s, node.finished_s, asdict(node)),
        ]
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _named(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": PROCESS, "tid": thread, "name": what, "args": {"name": name}}


def _span(
    thread: int,
    name: str,
    begin_s: float | None,
    end_s: float | None,
    details: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """A span, unless one of its ends is not known."""
    if begin_s is None or end_s is None or end_s <= begin_s:
        return []
    span = {"ph": "X", "pid": PROCESS, "tid": thread, "name": name, "args": details or {}}
    return [span | {"ts": 1e6 * begin_s, "dur": 1e6 * (end_s - begin_s)}]

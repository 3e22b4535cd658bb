"""Recording of answers and runs, and sampling of engines and processes."""

from __future__ import annotations

import time
from collections.abc import Callable

from plato.engine import EngineClosedError, EngineStats
from plato.metrics import table
from plato.metrics.recorder import Metric, Recorder, Totals
from plato.runs import (
    ANSWERED_ELSEWHERE,
    Mode,
    NodeReport,
    RunEvents,
    RunFailed,
    RunFinished,
    RunState,
)


class AnswerTimer:
    """Times an answer as its client sees it, from the construction of this object.

    Uses the clock of this process, so it includes what no event reports (admission, failover).
    """

    def __init__(self, state: RunState, recorder: Recorder) -> None:
        """`state` is fed by the caller, before it calls `observe`."""
        self._state = state
        self._recorder = recorder
        self._asked = time.monotonic()
        self._shown = False

    def observe(self, events: RunEvents) -> None:
        """Record the measurements that these events complete."""
        if not self._shown and any(event.text for event in events):
            self._shown = True
            self._record(table.FIRST_TEXT_SECONDS)
        if isinstance(ended := events[-1], RunFinished):
            self._record(table.ANSWER_SECONDS)
            self._recorder.add(table.ANSWER_TOKENS, ended.report.answer_tokens)

    def _record(self, metric: Metric) -> None:
        mode = self._state.mode or self._state.request.mode
        self._recorder.observe(metric, time.monotonic() - self._asked, mode=mode)


def record_run(recorder: Recorder, ended: RunFinished | RunFailed) -> None:
    """Record a run from its last event, unless its question is answered elsewhere."""
    failed = isinstance(ended, RunFailed)
    code = (ended.code or "internal_error") if isinstance(ended, RunFailed) else ""
    if code in ANSWERED_ELSEWHERE:
        return
    outcome = "cancelled" if code == "cancelled" else "failed" if failed else "done"
    report = ended.report
    mode = report.mode if report is not None else Mode.AUTO
    recorder.add(table.RUNS, mode=mode, outcome=outcome)
    if outcome == "failed":
        recorder.add(table.RUN_ERRORS_TOTAL, code=code)
    if report is None:
        return
    if outcome == "done":
        recorder.observe(table.RUN_SECONDS, report.duration_s, mode=mode)
    if report.degraded:
        recorder.add(table.RUNS_DEGRADED)
    if report.plan.source == "model":
        recorder.observe(table.PLAN_SECONDS, report.plan.finished_s - report.plan.started_s)
    if mode in (Mode.PLATO, Mode.SKELETON) and report.nodes:
        recorder.observe(table.PLAN_NODES, len(report.nodes))
    for node in report.nodes:
        _record_node(recorder, node)


def _record_node(recorder: Recorder, node: NodeReport) -> None:
    recorder.add(table.NODES, outcome=node.state)
    if node.started_s is None or node.first_token_s is None:
        return
    recorder.observe(table.NODE_FIRST_TOKEN_SECONDS, node.first_token_s - node.started_s)
    if node.finished_s is not None and node.tokens > 1:
        decoding_s = node.finished_s - node.first_token_s
        recorder.observe(table.INTER_TOKEN_SECONDS, decoding_s / (node.tokens - 1))


class EngineSampler:
    """Samples an engine's state and totals."""

    def __init__(self, recorder: Recorder, stats: Callable[[], EngineStats]) -> None:
        self._recorder = recorder
        self._stats = stats
        self._totals = Totals(recorder)

    def __call__(self) -> None:
        """Record the current state. Raises what `stats` raises."""
        try:
            stats = self._stats()
        except EngineClosedError:
            self._recorder.set(table.ENGINE_AVAILABLE, 0.0)
            raise
        self._recorder.set(table.ENGINE_AVAILABLE, float(stats.available))
        load, totals, size = stats.load, self._totals, stats.kv_bytes_per_token
        totals.record(table.DECODED_TOKENS, stats.output_tokens)
        totals.record(table.PROMPT_TOKENS, stats.cached_tokens, kv="cached")
        computed = stats.prompt_tokens - stats.cached_tokens
        totals.record(table.PROMPT_TOKENS, computed, kv="computed")
        totals.record(table.RECOMPUTED_TOKENS, stats.recomputed_tokens)
        totals.record(table.PREEMPTIONS, stats.preemptions)
        totals.record(table.STEPS, stats.steps)
        totals.record(table.STEP_SEQUENCES, stats.step_sequences)
        totals.record(table.BUSY_SECONDS, stats.busy_s)
        totals.record(table.KV_EVICTED, stats.evicted_tokens * size)
        totals.record(table.KV_IMPORTED, stats.imported_tokens)
        self._recorder.set(table.SEQUENCES, load.running, state="running")
        self._recorder.set(table.SEQUENCES, load.waiting, state="waiting")
        self._recorder.set(table.PREFILL_QUEUE, load.prefill_tokens)
        useful = min(load.step_times.useful_width, load.places) if load.step_times else 0
        self._recorder.set(table.USEFUL_WIDTH, useful)
        self._recorder.set(table.KV_CAPACITY, stats.kv_capacity * size)
        self._recorder.set(table.KV_USED, stats.kv_used * size)
        self._recorder.set(table.KV_AVAILABLE, load.kv_free * size)


class StoreSampler:
    """Samples whether this process can reach the context store."""

    def __init__(self, recorder: Recorder, available: Callable[[], bool]) -> None:
        self._recorder = recorder
        self._available = available

    def __call__(self) -> None:
        """Record the current value."""
        self._recorder.set(table.STORE_AVAILABLE, float(self._available()))


class ProcessSampler:
    """Samples the CPU time of this process."""

    def __init__(self, recorder: Recorder) -> None:
        self._totals = Totals(recorder)

    def __call__(self) -> None:
        """Record the current value."""
        self._totals.record(table.CPU_SECONDS, time.process_time())

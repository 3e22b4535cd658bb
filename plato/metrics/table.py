"""Every metric: the single source for code, dashboard, alert rules, tests and docs.

Ray prefixes the names with `ray_`. docs/operations.md explains each metric.
"""

from __future__ import annotations

from enum import StrEnum

from plato.metrics.recorder import OTHER, Kind, Metric


class Role(StrEnum):
    """The process that records a metric."""

    INGRESS = "ingress"
    PLANNER = "planner"
    SCHEDULER = "scheduler"
    DECODER = "decoder"


METRICS: dict[str, Metric] = {}
"""All metrics, by name."""
_ROLES: dict[str, frozenset[Role]] = {}


def metrics_of(role: Role) -> tuple[Metric, ...]:
    """The metrics that a process of `role` records."""
    return tuple(metric for name, metric in METRICS.items() if role in _ROLES[name])


def _declare(
    kind: Kind,
    name: str,
    help: str,  # noqa: A002
    roles: tuple[Role, ...],
    labels: dict[str, tuple[str, ...]],
    buckets: tuple[float, ...] = (),
) -> Metric:
    if name in METRICS:
        raise AssertionError(f"{name} is declared twice")
    METRICS[name] = Metric(name, kind, help, labels, buckets)
    _ROLES[name] = frozenset(roles)
    return METRICS[name]


def _counter(name: str, help: str, *roles: Role, **labels: tuple[str, ...]) -> Metric:  # noqa: A002
    return _declare(Kind.COUNTER, f"plato_{name}_total", help, roles, labels)


def _gauge(name: str, help: str, *roles: Role, **labels: tuple[str, ...]) -> Metric:  # noqa: A002
    return _declare(Kind.GAUGE, f"plato_{name}", help, roles, labels)


def _histogram(
    name: str,
    help: str,  # noqa: A002
    buckets: tuple[float, ...],
    *roles: Role,
    **labels: tuple[str, ...],
) -> Metric:
    return _declare(Kind.HISTOGRAM, f"plato_{name}", help, roles, labels, buckets)


MODES = ("plato", "skeleton", "sequential", "auto")
"""`auto`: the run ended before its mode was decided."""
RUN_ERRORS = (
    "context_length_exceeded",
    "deadline_exceeded",
    "internal_error",
    "invalid_value",
    "node_failed",
    "overloaded",
    "unavailable",
    OTHER,
)
"""Error codes of runs that failed after they started."""
REQUEST_ERRORS = (
    *RUN_ERRORS,
    "bad_gateway",
    "rate_limit_exceeded",
    "request_timeout",
    "storage_quota_exceeded",
    "cancelled",
    "host_not_allowed",
    "invalid_api_key",
    "invalid_json",
    "invalid_plan",
    "invalid_type",
    "missing_required_parameter",
    "method_not_allowed",
    "model_not_found",
    "not_found",
    "request_too_large",
    "run_not_found",
    "slow_consumer",
    "unknown_parameter",
    "unsupported_media_type",
    "unsupported_value",
)
"""Error codes that clients receive."""
HINTS = (
    "tools",
    "functions",
    "reasoning_effort",
    "verbosity",
    "service_tier",
    "store",
    "prediction",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "messages.name",
    "messages.reasoning_content",
    "stream_options.include_obfuscation",
    "chat_template_kwargs",
    "ignore_eos",
    "min_tokens",
    "typical_p",
)
"""Parameters of requests that have no effect here and that common clients send."""
SERVING = (Role.SCHEDULER, Role.DECODER)

# Upper bounds in seconds. Ray replaces every value by the midpoint of its bucket: the bucket width
# limits the precision of quantiles, and sums are only estimates.
_FIRST_TEXT_S = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_ANSWER_S = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0)
_PLAN_S = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_TOKEN_S = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
_IMPORT_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_NODES = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)

# What clients see.
FIRST_TEXT_SECONDS = _histogram(
    "time_to_first_text_seconds",
    "Time from the arrival of a request to the first text of its answer.",
    _FIRST_TEXT_S,
    Role.INGRESS,
    mode=MODES,
)
ANSWER_SECONDS = _histogram(
    "answer_seconds",
    "Time from the arrival of a request to the end of its answer.",
    _ANSWER_S,
    Role.INGRESS,
    mode=MODES,
)
ANSWER_TOKENS = _counter("answer_tokens", "Tokens in the answers of requests.", Role.INGRESS)
REQUEST_ERRORS_TOTAL = _counter(
    "request_errors",
    "Errors returned to clients, by error code.",
    Role.INGRESS,
    code=REQUEST_ERRORS,
)

IGNORED_PARAMETERS = _counter(
    "ignored_parameters",
    "Parameters of requests that were accepted and had no effect, by name.",
    Role.INGRESS,
    parameter=HINTS,
)

PASSED_ON = _counter(
    "passed_on",
    "Requests that an upstream server answered itself, by outcome.",
    Role.INGRESS,
    outcome=("answered", "refused", "failed", "cancelled"),
)

# Runs.
RUNS = _counter(
    "runs",
    "Runs that ended, by mode and outcome.",
    Role.SCHEDULER,
    mode=MODES,
    outcome=("done", "failed", "cancelled"),
)
RUN_SECONDS = _histogram(
    "run_seconds",
    "Time from the admission of a run to its end, successful runs only.",
    _ANSWER_S,
    Role.SCHEDULER,
    mode=MODES,
)
RUN_ERRORS_TOTAL = _counter(
    "run_errors", "Runs that failed, by error code.", Role.SCHEDULER, code=RUN_ERRORS
)
RUNS_DEGRADED = _counter(
    "runs_degraded", "Runs that ended while the context store was unavailable.", Role.SCHEDULER
)
RUNS_TAKEN_OVER = _counter(
    "runs_taken_over", "Runs taken over from another scheduler.", Role.SCHEDULER
)
RUNS_IN_FLIGHT = _gauge("runs_in_flight", "Runs in flight.", Role.SCHEDULER)
RUNS_WAITING = _gauge("runs_waiting", "Runs waiting for admission.", Role.SCHEDULER)
BRANCHES_WAITING = _gauge(
    "branches_waiting",
    "Nodes that could be decoded, and wait because of what that would cost others.",
    Role.SCHEDULER,
)
FALLBACKS = _counter(
    "fallbacks",
    "Answers whose planning was skipped or cut short, by reason.",
    Role.SCHEDULER,
    reason=(
        *("not_split", "max_tokens", "context", "load", "planner_failed", "too_few_parts"),
        *("plan_broke_off", "response_format", "tool_choice", "completions"),
    ),
)

# Plans and their nodes.
PLAN_SECONDS = _histogram(
    "plan_seconds",
    "Time from the plan request to the last line of the plan, or to the decision not to split.",
    _PLAN_S,
    Role.SCHEDULER,
)
PLAN_NODES = _histogram("plan_nodes", "Nodes in a planned answer.", _NODES, Role.SCHEDULER)
PLAN_RETRIES = _counter("plan_retries", "Plans resumed on another planner.", Role.SCHEDULER)
NODES = _counter(
    "nodes",
    "Nodes of runs that ended, by outcome.",
    Role.SCHEDULER,
    outcome=("done", "failed", "cancelled"),
)
NODE_FIRST_TOKEN_SECONDS = _histogram(
    "node_first_token_seconds",
    "Time from the dispatch of a node to its first token: queueing, KV transfer and prefill.",
    _FIRST_TEXT_S,
    Role.SCHEDULER,
)
INTER_TOKEN_SECONDS = _histogram(
    "inter_token_seconds",
    "Mean inter-token time of a node; one observation per node.",
    _TOKEN_S,
    Role.SCHEDULER,
)
NODE_RETRIES = _counter(
    "node_retries",
    "Retries of nodes, by reason.",
    Role.SCHEDULER,
    reason=("busy", "died", "engine", "lease_lost", "silent"),
)

# Placement and KV reuse, as seen by the scheduler.
PLACEMENTS = _counter(
    "placements",
    "Nodes dispatched to a decoder; `import`: with KV transfer from another decoder.",
    Role.SCHEDULER,
    kv=("compute", "import"),
)
REUSE_PREDICTED = _counter(
    "reuse_predicted_tokens",
    "Prompt tokens that placement predicted to be cached.",
    Role.SCHEDULER,
)
REUSE_ACTUAL = _counter(
    "reuse_actual_tokens",
    "Prompt tokens of the same nodes that were actually cached.",
    Role.SCHEDULER,
)
REUSE_MISSED = _counter(
    "reuse_missed_tokens",
    "Prompt tokens that were predicted to be cached but were not.",
    Role.SCHEDULER,
)
KV_SNAPSHOTS = _counter(
    "kv_snapshots",
    "Full KV snapshots that a scheduler requested from a decoder.",
    Role.SCHEDULER,
)
DECODERS_AVOIDED = _gauge(
    "decoders_avoided",
    "Decoders that placement currently avoids because they have just failed.",
    Role.SCHEDULER,
)
DECODER_SILENCES = _counter(
    "decoder_silences", "Times a decoder was considered lost after a silence.", Role.SCHEDULER
)

# The context store.
STORE_AVAILABLE = _gauge(
    "context_store_available",
    "1 if the last call to the context store succeeded, 0 if it failed.",
    *SERVING,
)
STORE_WRITES_PENDING = _gauge(
    "context_store_writes_pending",
    "Writes queued for the context store.",
    Role.SCHEDULER,
)
STORE_WRITES_DROPPED = _counter(
    "context_store_writes_dropped",
    "Writes dropped because the queue was full or the write raised an error.",
    Role.SCHEDULER,
)

# Engines.
ENGINE_AVAILABLE = _gauge(
    "engine_available",
    "1 if the engine, or the server behind it, answered its last call, 0 if not.",
    Role.DECODER,
)
DECODED_TOKENS = _counter(
    "decoded_tokens", "Output tokens of the engine, including plans.", Role.DECODER
)
PROMPT_TOKENS = _counter(
    "prompt_tokens",
    "Prompt tokens of the engine, by whether their KV was cached or computed.",
    Role.DECODER,
    kv=("computed", "cached"),
)
RECOMPUTED_TOKENS = _counter(
    "recomputed_tokens",
    "Tokens recomputed after a preemption.",
    Role.DECODER,
)
PREEMPTIONS = _counter("preemptions", "Sequences preempted to free KV memory.", Role.DECODER)
STEPS = _counter("engine_steps", "Engine steps.", Role.DECODER)
STEP_SEQUENCES = _counter(
    "engine_step_sequences",
    "Sequences that got a token, summed over engine steps; divide by steps for the batch width.",
    Role.DECODER,
)
BUSY_SECONDS = _counter("engine_busy_seconds", "Time that the engine spent in steps.", Role.DECODER)
SEQUENCES = _gauge(
    "sequences",
    "Sequences in the engine's batch and queue.",
    Role.DECODER,
    state=("running", "waiting"),
)
PREFILL_QUEUE = _gauge("prefill_queue_tokens", "Prompt tokens waiting for prefill.", Role.DECODER)
USEFUL_WIDTH = _gauge(
    "useful_width",
    "Largest batch width that still increases throughput, as measured; 0 if not yet known.",
    Role.DECODER,
)
KV_CAPACITY = _gauge("kv_capacity_bytes", "KV capacity of the engine.", Role.DECODER)
KV_USED = _gauge("kv_used_bytes", "KV in use or cached.", Role.DECODER)
KV_AVAILABLE = _gauge("kv_available_bytes", "KV that is free or evictable.", Role.DECODER)
KV_EVICTED = _counter("kv_evicted_bytes", "KV evicted from the cache.", Role.DECODER)
KV_IMPORTED = _counter(
    "kv_imported_tokens", "Prompt tokens whose KV was imported from another decoder.", Role.DECODER
)
KV_IMPORTS = _counter(
    "kv_imports",
    "KV transfers from another decoder, by outcome.",
    Role.DECODER,
    outcome=("taken", "missing", "unneeded", "failed"),
)
KV_IMPORT_SECONDS = _histogram(
    "kv_import_seconds", "Duration of a KV transfer from another decoder.", _IMPORT_S, Role.DECODER
)

# Processes.
CPU_SECONDS = _counter("process_cpu_seconds", "CPU time of the process, over all threads.", *Role)
LOOP_LAG = _histogram(
    "event_loop_lag_seconds",
    "Delay of the event loop's wake-ups.",
    _LAG_S,
    *Role,
)

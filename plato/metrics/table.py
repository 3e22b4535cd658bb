"""Every metric there is: the one place that code, dashboard, alert rules, tests and docs share.

Ray puts `ray_` in front of the names. docs/operations.md says what each of them tells.
"""

from __future__ import annotations

from enum import StrEnum

from plato.metrics.recorder import OTHER, Kind, Metric


class Role(StrEnum):
    """Which process a metric comes from."""

    INGRESS = "ingress"
    PLANNER = "planner"
    SCHEDULER = "scheduler"
    DECODER = "decoder"


METRICS: dict[str, Metric] = {}
"""By name."""
_ROLES: dict[str, frozenset[Role]] = {}


def metrics_of(role: Role) -> tuple[Metric, ...]:
    """What processes of one role record."""
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
"""`auto` is a run that ended before it was known how it would be answered."""
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
"""What ends a run that has begun."""
REQUEST_ERRORS = (
    *RUN_ERRORS,
    "cancelled",
    "invalid_json",
    "invalid_plan",
    "invalid_type",
    "missing_required_parameter",
    "model_not_found",
    "not_found",
    "run_not_found",
    "unknown_parameter",
    "unsupported_value",
)
"""What a client is told."""
SERVING = (Role.SCHEDULER, Role.DECODER)

# Upper bounds in seconds. Ray takes the middle of a bucket for every value in it, so quantiles are
# as good as the buckets are narrow, and sums are not worth reading.
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
    "From a chat completion's arrival to the first text of its answer.",
    _FIRST_TEXT_S,
    Role.INGRESS,
    mode=MODES,
)
ANSWER_SECONDS = _histogram(
    "answer_seconds",
    "From a chat completion's arrival to the end of its answer.",
    _ANSWER_S,
    Role.INGRESS,
    mode=MODES,
)
ANSWER_TOKENS = _counter(
    "answer_tokens", "Tokens of the answers that chat completions have shown.", Role.INGRESS
)
REQUEST_ERRORS_TOTAL = _counter(
    "request_errors", "Errors that clients were told.", Role.INGRESS, code=REQUEST_ERRORS
)

# Runs.
RUNS = _counter(
    "runs",
    "Runs that have ended, by how they were answered and how they ended.",
    Role.SCHEDULER,
    mode=MODES,
    outcome=("done", "failed", "cancelled"),
)
RUN_SECONDS = _histogram(
    "run_seconds",
    "From a run's admission to its end, if it ended well.",
    _ANSWER_S,
    Role.SCHEDULER,
    mode=MODES,
)
RUN_ERRORS_TOTAL = _counter(
    "run_errors", "Runs that have failed, by the error's code.", Role.SCHEDULER, code=RUN_ERRORS
)
RUNS_DEGRADED = _counter(
    "runs_degraded", "Runs that had to do without the context store.", Role.SCHEDULER
)
RUNS_TAKEN_OVER = _counter(
    "runs_taken_over", "Runs that a scheduler has taken over from another.", Role.SCHEDULER
)
RUNS_IN_FLIGHT = _gauge("runs_in_flight", "Runs that are being answered.", Role.SCHEDULER)
RUNS_WAITING = _gauge("runs_waiting", "Runs that wait for their admission.", Role.SCHEDULER)
FALLBACKS = _counter(
    "fallbacks",
    "Answers that were not planned to the end although they could have been, by reason.",
    Role.SCHEDULER,
    reason=("not_split", "decoders_full", "planner_failed", "too_few_parts", "plan_broke_off"),
)

# Plans and their nodes.
PLAN_SECONDS = _histogram(
    "plan_seconds",
    "From asking for a plan to its last line, or to the decision not to split.",
    _PLAN_S,
    Role.SCHEDULER,
)
PLAN_NODES = _histogram("plan_nodes", "Nodes of a planned answer.", _NODES, Role.SCHEDULER)
PLAN_RETRIES = _counter(
    "plan_retries", "Plans that another planner had to go on with.", Role.SCHEDULER
)
NODES = _counter(
    "nodes",
    "Nodes of ended runs, by how they ended.",
    Role.SCHEDULER,
    outcome=("done", "failed", "cancelled"),
)
NODE_FIRST_TOKEN_SECONDS = _histogram(
    "node_first_token_seconds",
    "From a node's dispatch to its first token: queue, moved KV and prefill.",
    _FIRST_TEXT_S,
    Role.SCHEDULER,
)
INTER_TOKEN_SECONDS = _histogram(
    "inter_token_seconds",
    "Mean time between the tokens of one node; one value a node.",
    _TOKEN_S,
    Role.SCHEDULER,
)
NODE_RETRIES = _counter(
    "node_retries",
    "Attempts after which a node had to go on elsewhere, by what was wrong.",
    Role.SCHEDULER,
    reason=("busy", "died", "engine", "lease_lost", "silent"),
)

# Placement and reuse, as the scheduler sees them.
PLACEMENTS = _counter(
    "placements",
    "Nodes sent to a decoder, by where it gets the KV that only others hold.",
    Role.SCHEDULER,
    kv=("compute", "import"),
)
REUSE_PREDICTED = _counter(
    "reuse_predicted_tokens",
    "Prompt tokens that placement expected to find cached.",
    Role.SCHEDULER,
)
REUSE_ACTUAL = _counter(
    "reuse_actual_tokens", "Prompt tokens of the same nodes that were cached.", Role.SCHEDULER
)
REUSE_MISSED = _counter(
    "reuse_missed_tokens",
    "Prompt tokens that were expected to be cached, and were not.",
    Role.SCHEDULER,
)
KV_SNAPSHOTS = _counter(
    "kv_snapshots",
    "Times a scheduler had to ask a decoder for all that it holds.",
    Role.SCHEDULER,
)
DECODERS_AVOIDED = _gauge(
    "decoders_avoided",
    "Decoders that get nothing now because they have just failed.",
    Role.SCHEDULER,
)
DECODER_SILENCES = _counter(
    "decoder_silences", "Times a decoder was silent until it counted as lost.", Role.SCHEDULER
)

# The context store.
STORE_AVAILABLE = _gauge(
    "context_store_available",
    "1 while the context store answers; 0 while its circuit breaker counts failures.",
    *SERVING,
)
STORE_WRITES_PENDING = _gauge(
    "context_store_writes_pending",
    "Writes that wait for the context store.",
    Role.SCHEDULER,
)
STORE_WRITES_DROPPED = _counter(
    "context_store_writes_dropped",
    "Writes that waited too long for the context store, or were refused by it.",
    Role.SCHEDULER,
)

# Engines.
DECODED_TOKENS = _counter(
    "decoded_tokens", "Output tokens of the engine, plans included.", Role.DECODER
)
PROMPT_TOKENS = _counter(
    "prompt_tokens",
    "Prompt tokens of the engine, by whether their KV was there.",
    Role.DECODER,
    kv=("computed", "cached"),
)
RECOMPUTED_TOKENS = _counter(
    "recomputed_tokens",
    "Tokens computed again after a preemption.",
    Role.DECODER,
)
PREEMPTIONS = _counter(
    "preemptions", "Times a sequence had to give its KV up for others.", Role.DECODER
)
STEPS = _counter("engine_steps", "Steps of the engine.", Role.DECODER)
STEP_SEQUENCES = _counter(
    "engine_step_sequences",
    "Sequences that got a token, summed over the engine's steps: over steps, the batch width.",
    Role.DECODER,
)
BUSY_SECONDS = _counter("engine_busy_seconds", "Time the engine spent in steps.", Role.DECODER)
SEQUENCES = _gauge(
    "sequences",
    "Sequences of the engine, in the batch and in its queue.",
    Role.DECODER,
    state=("running", "waiting"),
)
PREFILL_QUEUE = _gauge(
    "prefill_queue_tokens", "Prompt tokens that wait to be computed.", Role.DECODER
)
USEFUL_WIDTH = _gauge(
    "useful_width",
    "Sequences that decode faster side by side than in turns, as measured; 0: not known yet.",
    Role.DECODER,
)
KV_CAPACITY = _gauge("kv_capacity_bytes", "KV that the engine's budget holds.", Role.DECODER)
KV_USED = _gauge("kv_used_bytes", "KV that is in use or cached.", Role.DECODER)
KV_AVAILABLE = _gauge("kv_available_bytes", "KV that is free or can be evicted.", Role.DECODER)
KV_EVICTED = _counter("kv_evicted_bytes", "Cached KV that had to go for new KV.", Role.DECODER)
KV_IMPORTED = _counter(
    "kv_imported_tokens", "Prompt tokens whose KV came from another decoder.", Role.DECODER
)
KV_IMPORTS = _counter(
    "kv_imports",
    "Times KV was to come from another decoder, by what came of it.",
    Role.DECODER,
    outcome=("taken", "missing", "unneeded", "failed"),
)
KV_IMPORT_SECONDS = _histogram(
    "kv_import_seconds", "Time to get KV from another decoder.", _IMPORT_S, Role.DECODER
)

# Processes.
CPU_SECONDS = _counter("process_cpu_seconds", "CPU time of the process, all threads.", *Role)
LOOP_LAG = _histogram(
    "event_loop_lag_seconds",
    "How much later than asked the process's event loop wakes up.",
    _LAG_S,
    *Role,
)

"""What the scheduler needs to know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Bounds and deadlines; times in seconds."""

    node_max_tokens: int = 256
    sequential_max_tokens: int = 1024
    context_length: int = 8192
    plan_deadline_s: float = 30.0
    node_deadline_s: float = 120.0
    run_deadline_s: float = 300.0
    lease_ttl_s: float = 1.2
    silence_s: float = 1.8
    """A replica that answers no renewal for this long counts as lost; what it had goes elsewhere.
    Well above a second: Ray can keep a replica from answering for about one."""
    node_attempts: int = 4
    """Attempts in a row that may bring no new token, before a node fails; at a silent decoder one
    counts half."""
    plan_attempts: int = 2
    retry_backoff_s: float = 0.1
    """Before the second attempt without a new token; doubles with each, with jitter."""
    max_runs: int = 64
    max_waiting_runs: int = 256
    patience_s: float = 10.0
    """How long a run waits for its turn."""
    ownership_ttl_s: float = 6.0
    """A run whose scheduler is silent for this goes to another; renewed three times within."""
    linger_s: float = 30.0
    """How long an ended run is kept that the context store has missed something of."""
    group_s: float = 0.1
    """Tokens within this time are sent together: every message costs processor time, which the
    decoders lack where they share a machine with the rest."""
    hidden_group_s: float = 0.25
    """The same for parts whose text waits for that of earlier ones."""

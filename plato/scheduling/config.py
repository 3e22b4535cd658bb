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
    max_runs: int = 64
    group_s: float = 0.02
    """Tokens within this time are sent together: a cluster carries only so many messages."""

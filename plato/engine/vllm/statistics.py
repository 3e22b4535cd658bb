"""What vLLM says of its steps."""

from __future__ import annotations

import time
from typing import Any


class Statistics:
    """Sums of vLLM's statistics since it started, and its state after the last step."""

    def __init__(self) -> None:
        self.steps = 0
        self.step_sequences = 0
        """See `EngineStats.step_sequences`."""
        self.preemptions = 0
        self.kv_usage = 0.0
        """Share of the KV cache that live sequences use."""
        self.stepped_at = time.monotonic()
        """When the last statistics came."""

    def record(self, scheduler: Any, iteration: Any) -> None:
        """Add those of one step; see `SchedulerStats` and `IterationStats` in `vllm.v1.metrics`."""
        self.stepped_at = time.monotonic()
        if scheduler is not None:
            self.kv_usage = scheduler.kv_cache_usage
        if iteration is not None:
            self.steps += 1
            self.step_sequences += iteration.num_generation_tokens
            self.preemptions += iteration.num_preempted_reqs

"""The cost of eight branches of one prefix, with and without sharing it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.common.workload import fresh_tenant
from benchmarks.engine.harness import Output, Tokens, Workbench, drain, request
from plato.engine.torch.core import EngineCore

BRANCHES = 8
PREFIX = 512
OWN = 24


@dataclass(frozen=True, slots=True)
class Fan:
    """Branches that arrived together at an idle engine."""

    seconds: float
    """Until the last one's first token."""
    prefilled: int
    """Prompt tokens computed."""


def run_fan(core: EngineCore, prefix: Tokens, own: Sequence[Tokens], *, shared: bool) -> Fan:
    """Let branches off `prefix` arrive together, of one tenant, or (not shared) each its own's."""
    tenant = fresh_tenant()
    tenants = [tenant if shared else fresh_tenant() for _ in own]
    outputs = [Output() for _ in own]
    before = core.prompt_tokens - core.cached_tokens
    start = time.perf_counter()
    for branch, owner, output in zip(own, tenants, outputs, strict=True):
        core.add(request(prefix, branch, max_tokens=1, tenant=owner), output)
    drain(core)
    times = [output.first_at for output in outputs if output.first_at is not None]
    if len(times) < len(own):
        raise RuntimeError("a branch ended without a token")
    return Fan(max(times) - start, core.prompt_tokens - core.cached_tokens - before)


def measure_fork(bench: Workbench) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Prompt tokens that eight branches compute, and their time over that without sharing."""
    prefix = bench.documents(1, PREFIX)[0]
    own = bench.documents(BRANCHES, OWN)
    core = bench.core("auto")
    run_fan(core, prefix[:64], own, shared=True)  # Warm up.
    rows = []
    for _ in range(1 if bench.quick else 3):
        shared = run_fan(core, prefix, own, shared=True)
        separate = run_fan(core, prefix, own, shared=False)
        rows.append(
            {
                "shared_s": shared.seconds,
                "separate_s": separate.seconds,
                "ratio": shared.seconds / separate.seconds,
                "shared_prefilled": shared.prefilled,
                "separate_prefilled": separate.prefilled,
            }
        )
    return {
        "fork_time_ratio": median(row["ratio"] for row in rows),
        "fork_prefilled_tokens": max(row["shared_prefilled"] for row in rows),
    }, rows

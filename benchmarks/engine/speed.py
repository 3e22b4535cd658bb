"""How fast does the engine decode compared with transformers? Equal work, interleaved.

All prompts are different, so nothing is shared between sequences, and every measurement has its own
tenant, so nothing is cached between measurements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch

from benchmarks.common.workload import fresh_tenant
from benchmarks.engine.contestants import (
    Contestant,
    EngineContestant,
    GenerateContestant,
    PagedContestant,
    Timing,
)
from benchmarks.engine.harness import Workbench, request, run_together, timed
from plato.engine.torch.core import EngineCore

WIDTHS = (1, 2, 4, 8, 16)
METRIC_WIDTHS = (1, 8, 16)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which contestants decode which widths, and how often."""

    context: int
    count: int
    repeats: dict[str, dict[int, int]]
    """By contestant and width."""

    @classmethod
    def of(cls, *, quick: bool) -> Plan:
        """Three repeats of what becomes a metric; one of what is only shown."""
        if quick:
            once = dict.fromkeys(METRIC_WIDTHS, 1)
            return cls(144, 24, {"auto": once, "float32": once, "generate": once, "paged": {8: 1}})
        often = {width: 3 if width in METRIC_WIDTHS else 1 for width in WIDTHS}
        return cls(
            288,
            64,
            {
                "auto": often,
                "float32": often,
                "generate": often,
                "paged": {width: 3 if width == 8 else 1 for width in WIDTHS},
                "generate_bfloat16": dict.fromkeys(WIDTHS, 1),
            },
        )


def measure_speed(bench: Workbench) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Tokens per second by width of every contestant, and the ratios between them."""
    plan = Plan.of(quick=bench.quick)
    with closing(PagedContestant(bench.folder)) as paged:
        contestants: dict[str, Contestant] = {
            "auto": EngineContestant(bench.core("auto")),
            "float32": EngineContestant(bench.core("float32")),
            "generate": GenerateContestant(bench.reference("float32")),
            "paged": paged,
        }
        if "generate_bfloat16" in plan.repeats:
            contestants["generate_bfloat16"] = GenerateContestant(bench.reference("bfloat16"))
        timings = _compete(bench, contestants, plan)
    rows = [summary(name, width, found) for (name, width), found in timings.items()]
    for row in rows:
        row |= {"prompt_tokens": plan.context, "new_tokens": plan.count}
    return speed_metrics(rows), rows


def _compete(
    bench: Workbench, contestants: dict[str, Contestant], plan: Plan
) -> dict[tuple[str, int], list[Timing]]:
    """Let every contestant decode in turn, width by width."""
    prompts = bench.documents(max(WIDTHS), plan.context)
    for contestant in contestants.values():
        contestant(prompts[:2], 4)  # Warm up.
    timings: dict[tuple[str, int], list[Timing]] = defaultdict(list)
    for width in WIDTHS:
        for repeat in range(max(repeats.get(width, 0) for repeats in plan.repeats.values())):
            for name, contestant in contestants.items():
                if repeat < plan.repeats[name].get(width, 0):
                    timings[name, width].append(contestant(prompts[:width], plan.count))
    return timings


def summary(name: str, width: int, timings: Sequence[Timing]) -> dict[str, Any]:
    """Medians of one contestant at one width, with the spread of the whole."""
    totals = [timing.tokens_per_s for timing in timings]
    steps = [timing.step_ms for timing in timings if timing.step_ms is not None]
    return {
        "engine": name,
        "width": width,
        "repeats": len(timings),
        "tokens_per_s": median(totals),
        "tokens_per_s_min": min(totals),
        "tokens_per_s_max": max(totals),
        "decode_tokens_per_s": median(timing.decode_tokens_per_s for timing in timings),
        "step_ms": median(steps) if steps else None,
    }


def speed_metrics(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Ratios of the engine over transformers at the widths that count, and its step times.

    They compare decoding; `..._with_prompts` compares the whole, from prompts to the last token.
    """
    found = {(row["engine"], row["width"]): row for row in rows}
    metrics: dict[str, Any] = {}

    def compare(name: str, ours: str, theirs: str, width: int) -> None:
        mine, other = found.get((ours, width)), found.get((theirs, width))
        if mine is not None and other is not None:
            metrics[f"{name}_{width}"] = mine["decode_tokens_per_s"] / other["decode_tokens_per_s"]
            metrics[f"{name}_{width}_with_prompts"] = mine["tokens_per_s"] / other["tokens_per_s"]

    for width in METRIC_WIDTHS:
        compare("speedup_vs_generate", "auto", "generate", width)
    compare("speedup_vs_paged", "auto", "paged", 8)
    for width in METRIC_WIDTHS:
        metrics[f"step_ms_{width}"] = found["auto", width]["step_ms"]
    for width in METRIC_WIDTHS:
        compare("engine_float32_speedup", "float32", "generate", width)
        compare("speedup_vs_bfloat16_generate", "auto", "generate_bfloat16", width)
    return metrics


def measure_prefill(bench: Workbench) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Prompt tokens per second of one long prompt, next to transformers' own forward pass."""
    length, repeats = (256, 1) if bench.quick else (1024, 3)
    (prompt,) = bench.documents(1, length)
    reference = bench.reference("float32")
    ids = torch.tensor([prompt])

    @torch.inference_mode()
    def forward() -> None:
        reference(ids, use_cache=True, logits_to_keep=1)

    def prefill(core: EngineCore) -> None:
        run_together(core, [request(prompt, max_tokens=1, tenant=fresh_tenant())])

    cores = {"auto": bench.core("auto"), "float32": bench.core("float32")}
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, core in cores.items():
            seconds[name].append(timed(partial(prefill, core)))
        seconds["transformers"].append(timed(forward))
    rows = [
        {"engine": name, "prompt_tokens": length, "tokens_per_s": length / median(found)}
        for name, found in seconds.items()
    ]
    return {"prefill_tokens_per_s": rows[0]["tokens_per_s"]}, rows

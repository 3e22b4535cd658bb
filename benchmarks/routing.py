"""Is KV-aware placement faster than the placement policies of other systems?

    python -m benchmarks.routing [--quick] [--json FILE]

Real Ray, scheduler, KV trees and bookkeeping; four paced decoders, which sleep for the step times
of the default model instead of computing (two cores cannot run four decoders). Closed loop with a
fixed number of runs in flight, each with a plan of the fixed workload. *pressure*: several tenants
ask about a few long documents, not all of which fit into memory; *nothing to reuse*: short,
unrelated questions. Every policy gets the same runs in the same order, for every seed. One
deployment serves all policies (`benchmarks.policies.ByRunName`); each measurement has its own
tenants, so caches are not shared between measurements.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

from deployments.local import APP_NAME, LocalApp  # isort: skip
from ray import serve
from rich.console import Console
from rich.table import Table

from benchmarks.answering.reuse import cacheable_tokens
from benchmarks.common.report import Report, arguments
from benchmarks.common.statistics import bootstrap, percentile
from benchmarks.common.workload import FixedGraph, fixed_graphs
from benchmarks.policies import POLICIES
from deployments.handles import stream
from plato.engine import SamplingParams
from plato.prompting.model_tools import ModelTools
from plato.runs import (
    Message,
    Mode,
    NodeFinished,
    NodeOutput,
    NodeReport,
    RunEvent,
    RunFailed,
    RunRequest,
)
from plato.settings import MAX_NODES, Settings
from plato.testing.paced import Pace

DECODERS = 4
CONCURRENCY = 32
"""Runs at a time: eight for each decoder, more than its memory holds beside the documents."""
SCALE = 0.3
"""Of the workload's lengths: a measurement takes real time."""
TENANTS = 4
DOCUMENTS = 24
POPULARITY = tuple(1 / (1 + rank) for rank in range(DOCUMENTS))
"""How often each is asked about, relatively (Zipf's law)."""
DOCUMENT_WORDS = 520
ABOUT_DOCUMENTS = 0.75
"""Of the questions; the others are short and stand alone."""
KV_TOKENS = 4000
"""Of each decoder: three of the documents of 750 tokens, and some of the runs in flight."""
OURS = "kv_aware"
DEADLINE_S = 300.0


@dataclass
class Outcome:
    """One measurement: a policy, a scenario and a seed."""

    policy: str
    scenario: str
    seed: int
    makespan_s: float = 0.0
    first_text_s: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cacheable_tokens: int = 0
    predicted_tokens: int = 0
    misprediction_tokens: int = 0

    @property
    def cached_share(self) -> float:
        """Cached over cacheable prompt tokens."""
        return self.cached_tokens / max(1, self.cacheable_tokens)

    def row(self) -> dict[str, Any]:
        """The measurement as a row of the report."""
        return {
            "scenario": self.scenario,
            "policy": self.policy,
            "seed": self.seed,
            "runs": len(self.latency_s),
            "makespan_s": self.makespan_s,
            "tokens_per_s": self.tokens / self.makespan_s,
            "cached_share": self.cached_share,
            "cached_over_prompt": self.cached_tokens / max(1, self.prompt_tokens),
            "first_text_p50_s": percentile(self.first_text_s, 0.5),
            "first_text_p90_s": percentile(self.first_text_s, 0.9),
            "latency_p50_s": percentile(self.latency_s, 0.5),
            "prediction_error": self.misprediction_tokens / max(1, self.prompt_tokens),
        }


def main() -> None:
    """Run the benchmark."""
    options = arguments("routing", __doc__ or "").parse_args()
    seeds, runs = (range(1), 32) if options.quick else (range(4), 64)
    pace = Pace()
    settings = Settings(
        decoders=DECODERS,
        decoder_cpus=0.25,
        decoder_threads=1,
        engine="plato.testing.paced:paced_engine",
        engine_options={"pace": asdict(pace)},
        kv_budget_mb=-(-KV_TOKENS * pace.kv_bytes_per_token // (1 << 20)),
        max_runs=CONCURRENCY,
        # Its `kv_aware` moves no KV: the other policies do not, and a paced decoder's KV has no
        # size.
        placement="benchmarks.policies:ByRunName",
        equal_work=True,
        node_deadline_s=DEADLINE_S,
        # No run is refused: all policies answer the same runs.
        patience_s=DEADLINE_S,
    )
    outcomes: list[Outcome] = []
    with LocalApp(settings, port=0):
        bench = Bench(settings)
        # Where there is nothing to reuse, seeds differ little.
        for scenario, chosen in (("pressure", seeds), ("nothing_to_reuse", seeds[:2])):
            for seed in chosen:
                # Another order for each seed: whatever drifts meets every policy.
                names = list(POLICIES)
                random.Random(seed).shuffle(names)
                for policy in names:
                    outcome = asyncio.run(bench.measure(policy, scenario, seed, runs))
                    outcomes.append(outcome)
                    sys.stderr.write(
                        f"{scenario} {seed} {policy}: {outcome.makespan_s:.1f} s, "
                        f"{outcome.cached_share:.2f} cached\n"
                    )
    report = Report(
        "routing",
        settings.model_name,
        {
            "quick": options.quick,
            "decoders": DECODERS,
            "concurrency": CONCURRENCY,
            "runs": runs,
            "seeds": len(seeds),
            "kv_tokens": KV_TOKENS,
            "pace": str(pace),
        },
        metrics=metrics(outcomes),
        rows=[outcome.row() for outcome in outcomes],
    )
    show(outcomes)
    report.write(options.json)


class Bench:
    """Sends runs to the scheduler, and sums up what they report."""

    def __init__(self, settings: Settings) -> None:
        self._tools = ModelTools.load(settings)
        self._scheduler: Any = serve.get_deployment_handle("SchedulerService", APP_NAME)
        self._graphs = fixed_graphs()

    async def measure(self, policy: str, scenario: str, seed: int, count: int) -> Outcome:
        """One measurement."""
        outcome = Outcome(policy, scenario, seed)
        requests = workload(self._graphs, scenario, seed, count, f"{policy}-{scenario}-{seed}")
        waiting = list(reversed(requests))
        finished: list[tuple[RunRequest, list[RunEvent], float]] = []
        started = time.perf_counter()

        async def keep_asking() -> None:
            while waiting:
                request = waiting.pop()
                began = time.perf_counter()
                finished.append((request, await self._ask(request, outcome), began))

        await asyncio.gather(*(keep_asking() for _ in range(CONCURRENCY)))
        outcome.makespan_s = time.perf_counter() - started
        self._count(outcome, finished)
        return outcome

    async def _ask(self, request: RunRequest, outcome: Outcome) -> list[RunEvent]:
        events: list[RunEvent] = []
        began = time.perf_counter()
        first: float | None = None
        streaming = self._scheduler.options(stream=True)
        batches: Any = stream(lambda: streaming.run.remote(request))
        async with aclosing(batches):
            async for batch in batches:
                for event in batch or ():
                    if isinstance(event, RunFailed):
                        raise RuntimeError(event.message)
                    if first is None and isinstance(event, NodeOutput) and event.number == 1:
                        first = time.perf_counter() - began
                    events.append(event)
        outcome.first_text_s.append(first or 0.0)
        outcome.latency_s.append(time.perf_counter() - began)
        return events

    def _count(
        self, outcome: Outcome, finished: Sequence[tuple[RunRequest, list[RunEvent], float]]
    ) -> None:
        """Sum up reuse: what was cached, and what an unbounded cache would have held."""
        for _, events, _ in finished:
            for event in events:
                if isinstance(event, NodeFinished):
                    self._add(outcome, event.report)
        outcome.cacheable_tokens = sum(cacheable_tokens(self._tools, finished).values())

    @staticmethod
    def _add(outcome: Outcome, node: NodeReport) -> None:
        outcome.tokens += node.tokens
        outcome.prompt_tokens += node.prompt_tokens
        outcome.cached_tokens += node.cached_tokens
        outcome.predicted_tokens += node.predicted_cached_tokens
        outcome.misprediction_tokens += abs(node.predicted_cached_tokens - node.cached_tokens)


def workload(
    graphs: Sequence[FixedGraph], scenario: str, seed: int, count: int, name: str
) -> list[RunRequest]:
    """The runs of one measurement; `name` keeps it apart, and begins with its policy's name."""
    chance = random.Random(seed)
    requests = []
    for number in range(count):
        graph = chance.choice(graphs)
        tenant, question = f"{name}-{number}", f"{graph.question} ({number})"
        if scenario == "pressure":
            owner = chance.randrange(TENANTS)
            if chance.random() < ABOUT_DOCUMENTS:
                (topic,) = chance.choices(range(DOCUMENTS), POPULARITY)
                words = random.Random(topic).choices(WORDS, k=DOCUMENT_WORDS)
                question = f"{' '.join(words)}\n\n{graph.question}"
                owner = topic % TENANTS
            tenant = f"{name}-{owner}"
        requests.append(
            RunRequest(
                run_id=f"{name}-run-{number}",
                messages=(Message("user", question),),
                mode=Mode.PLATO,
                sampling=SamplingParams(),
                max_nodes=MAX_NODES,
                deadline_s=DEADLINE_S,
                tenant=tenant,
                plan=graph.scaled(SCALE),
                exact_lengths=True,
            )
        )
    if scenario == "pressure":
        return [with_system_prompt(request) for request in requests]
    return requests


def with_system_prompt(request: RunRequest) -> RunRequest:
    """The document in front, as clients send what many questions are about."""
    question = request.messages[-1].content
    document, separator, asked = question.rpartition("\n\n")
    if not separator:
        return request
    return replace(request, messages=(Message("system", document), Message("user", asked)))


def metrics(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Means over seeds, and ratios that compare the same seed under two policies."""
    others = [policy for policy in POLICIES if policy != OURS]
    by: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        by.setdefault((outcome.scenario, outcome.policy), []).append(outcome)

    def ratios(scenario: str, policy: str) -> list[float]:
        pairs = zip(by[scenario, policy], by[scenario, OURS], strict=True)
        return [theirs.makespan_s / ours.makespan_s for theirs, ours in pairs]

    best = min(
        fmean(one.makespan_s for one in by["nothing_to_reuse", policy]) for policy in POLICIES
    )
    ours = by["pressure", OURS]
    return {
        "cached_share": {
            policy: fmean(one.cached_share for one in by["pressure", policy]) for policy in POLICIES
        },
        "makespan_ratio": {policy: fmean(ratios("pressure", policy)) for policy in others},
        "makespan_ratio_interval": {
            policy: bootstrap(ratios("pressure", policy), fmean) for policy in others
        },
        "nothing_to_reuse_ratio": fmean(one.makespan_s for one in by["nothing_to_reuse", OURS])
        / best,
        "reuse_prediction_error": sum(one.misprediction_tokens for one in ours)
        / sum(one.prompt_tokens for one in ours),
    }


def show(outcomes: Sequence[Outcome]) -> None:
    """Print means over seeds."""
    for scenario in ("pressure", "nothing_to_reuse"):
        table = Table(title=scenario)
        columns = (
            "makespan_s",
            "tokens_per_s",
            "cached_share",
            "first_text_p50_s",
            "first_text_p90_s",
            "latency_p50_s",
            "prediction_error",
        )
        table.add_column("policy")
        for column in columns:
            table.add_column(column, justify="right")
        for policy in POLICIES:
            rows = [o.row() for o in outcomes if (o.scenario, o.policy) == (scenario, policy)]
            table.add_row(policy, *(f"{fmean(row[c] for row in rows):.3g}" for c in columns))
        Console(width=150).print(table)


WORDS = (
    *("harbour", "lamp", "river", "stone", "winter", "letter", "garden", "bridge", "market"),
    *("silver", "captain", "window", "morning", "paper", "island", "shadow", "engine", "copper"),
    *("valley", "thunder", "basket", "mirror", "candle", "forest", "station", "ladder"),
)


if __name__ == "__main__":
    main()

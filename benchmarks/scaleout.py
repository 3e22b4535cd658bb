"""How far does a pool scale, and how many schedulers does it need?

    python -m benchmarks.scaleout [--quick] [--json FILE] [--plots FOLDER]

The real graph scheduler and placement, in simulated time, over 1 to 256 simulated decoders with the
default model's step times as `benchmarks.engine` measured them last. They send what the server
sends: groups of tokens at the ticks of the stream interval, by the engine's own mailboxes. What the
control path costs is measured first, on this machine, and charged to the processes: calls,
messages, writes to the context store, the scheduler's work for nodes and for groups. Closed loop
with a fixed number of concurrent questions per decoder; the result is the highest throughput with a
p99 time to first text below the objective.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common.closed_loop import Load
from benchmarks.common.report import RESULTS, Report, arguments
from benchmarks.engine.stored import stored_pace
from benchmarks.simulation.costs import Costs, measure_costs
from benchmarks.simulation.pool import DecoderSpec
from benchmarks.simulation.service import Service
from plato.engine import Load as EngineLoad
from plato.engine import Prompt, Replica, Segment
from plato.prompting.model_tools import ModelTools
from plato.scheduling.placement import Placement
from plato.settings import Settings

REPLICAS = (1, 4, 16, 64, 256)
QUESTIONS_PER_REPLICA = (2, 4)
OBJECTIVE_S = 4.0
"""Of the p99 of the time to first text."""
KV_TOKENS = 40_000
WIDTH = 16
CHUNK = 256
NEAR_LINEAR = 0.95
CHANGED = 32
"""Replicas that report their load between two decisions: about as many as messages come in for a
node."""

Row = dict[str, Any]


def main() -> None:
    """Run the benchmark."""
    parser = arguments("scaleout", __doc__ or "")
    parser.add_argument("--plots", type=Path, default=RESULTS, help="folder for the plot")
    options = parser.parse_args()
    logging.getLogger("plato").setLevel(logging.ERROR)
    settings = Settings()
    tools = ModelTools.load(settings)
    costs = measure_local_costs(tools)
    placement_ms = {count: measure_placement(count) for count in REPLICAS}
    sys.stderr.write(f"{costs}, placement in ms {placement_ms}\n")
    decoder = DecoderSpec(stored_pace(), KV_TOKENS, WIDTH, CHUNK, settings.stream_interval_s)
    rows: list[Row] = []
    for replicas in REPLICAS[:4] if options.quick else REPLICAS:
        for schedulers in scheduler_counts(replicas, quick=options.quick):
            service = Service(replicas, schedulers, decoder, settings, costs)
            for per_replica in (2,) if options.quick else QUESTIONS_PER_REPLICA:
                began = time.perf_counter()
                questions = per_replica * replicas
                found = service.answer(tools, Load(questions))
                row = {"replicas": replicas, "schedulers": schedulers, "questions": questions}
                rows.append(row | found.row())
                sys.stderr.write(f"{rows[-1]} in {time.perf_counter() - began:.0f} s\n")
    report = Report(
        "scaleout",
        settings.model_name,
        {
            "quick": options.quick,
            "decoder": asdict(decoder),
            "costs": asdict(costs),
            "objective_s": OBJECTIVE_S,
            "placement_ms": placement_ms,
        },
        metrics=metrics(rows, placement_ms),
        rows=rows,
    )
    draw(rows, options.plots)
    report.write(options.json)


def scheduler_counts(replicas: int, *, quick: bool) -> list[int]:
    """Schedulers to try for a pool: one for 64, 32, 16 and 8 decoders."""
    counts = sorted({max(1, replicas // share) for share in (64, 32, 16, 8)})
    return counts[-1:] if quick else counts


def measure_local_costs(tools: ModelTools) -> Costs:
    """What the control path costs on this machine, with a Ray of its own."""
    from deployments.local import start_ray  # isort: skip

    with start_ray(cpus=2):
        return measure_costs(tools)


def measure_placement(replicas: int) -> float:
    """Milliseconds of one decision over so many replicas that hold much and are loaded."""
    placement = Placement(seed=0)
    names = tuple(Replica(f"r{number}") for number in range(replicas))
    chance = random.Random(0)
    prompts = [
        Prompt(tuple(Segment((number, at) * 50) for at in range(8)), "t") for number in range(50)
    ]
    placement.choose(prompts[0], names)

    def report(replica: Replica) -> None:
        load = EngineLoad(chance.randrange(16), prefill_tokens=100, kv_free=50_000)
        placement.replicas.observe(replica.name, "e", load)

    for replica in names:
        report(replica)
        for prompt in chance.sample(prompts, 5):
            placement.replicas.learn(prompt, replica.name)
    rounds, spent = 200, 0.0
    for number in range(rounds):
        for replica in chance.sample(names, min(CHANGED, replicas)):
            report(replica)
        began = time.perf_counter()
        placement.choose(prompts[number % len(prompts)], names)
        spent += time.perf_counter() - began
    return spent / rounds * 1e3


def metrics(rows: list[Row], placement_ms: dict[int, float]) -> dict[str, Any]:
    """What the pool can do, and what it takes."""
    best: dict[tuple[int, int], Row] = {}
    for row in rows:
        key = row["replicas"], row["schedulers"]
        within = row["first_text_p99_s"] <= OBJECTIVE_S
        if within and (key not in best or best[key]["tokens_per_s"] < row["tokens_per_s"]):
            best[key] = row
    highest = {
        replicas: max(row["tokens_per_s"] for (count, _), row in best.items() if count == replicas)
        for replicas in {count for count, _ in best}
    }
    alone = highest[min(highest)] / min(highest)
    enough = [
        row
        for (replicas, _), row in best.items()
        if replicas > 1 and row["tokens_per_s"] >= NEAR_LINEAR * highest[replicas]
    ]
    found: dict[str, Any] = {
        f"tokens_per_s_{replicas}": rate for replicas, rate in sorted(highest.items())
    }
    for replicas in (64, 256):
        if replicas in highest:
            found[f"linear_share_{replicas}"] = highest[replicas] / (replicas * alone)
    if enough:
        fewest = max(enough, key=lambda row: row["replicas"] / row["schedulers"])
        found |= {
            "replicas_per_scheduler": fewest["replicas"] / fewest["schedulers"],
            "scheduler_us_per_token": fewest["scheduler_us_per_token"],
            "messages_per_token": fewest["messages_per_token"],
        }
    return found | {"placement_ms_256": placement_ms[256]}


def draw(rows: list[Row], folder: Path) -> None:
    """Throughput by replicas for every number of schedulers, and the p99 of the first text."""
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        sys.stderr.write(f"no plot: {error}; pip install 'plato-serve[benchmark]'\n")
        return
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    for schedulers in sorted({row["schedulers"] for row in rows}):
        chosen = [row for row in rows if row["schedulers"] == schedulers]
        counts = sorted({row["replicas"] for row in chosen})
        by_count = [[row for row in chosen if row["replicas"] == count] for count in counts]
        rates = [max(row["tokens_per_s"] for row in some) for some in by_count]
        waits = [min(row["first_text_p99_s"] for row in some) for some in by_count]
        left.plot(counts, rates, "o-", label=f"{schedulers} schedulers")
        right.plot(counts, waits, "o-")
    left.set(xscale="log", yscale="log", xlabel="decoders", ylabel="tokens/s")
    right.set(xscale="log", xlabel="decoders", ylabel="p99 of the time to first text, s")
    right.axhline(OBJECTIVE_S, color="grey", linestyle=":")
    left.legend(fontsize=7)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("svg", "png"):
        figure.savefig(folder / f"scaleout.{kind}", dpi=110)


if __name__ == "__main__":
    main()

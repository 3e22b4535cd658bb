"""How far does a pool scale, and how many schedulers does it need?

    python -m benchmarks.scaleout [--quick] [--json FILE] [--plots FOLDER]

The real graph scheduler and placement, in simulated time, over 1 to 256 simulated decoders with the
default model's measured step times. Other costs are charged to the processes: those of a dispatch,
of a message and of the scheduler's own work are measured first, on this machine. Closed loop with a
fixed number of concurrent questions per decoder; the result is the highest throughput with a p99
time to first text below the objective.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.report import RESULTS, Report, arguments
from benchmarks.common.statistics import percentile
from benchmarks.common.workload import FixedGraph, fixed_graphs
from benchmarks.simulation.pool import SimulatedDecoder, SimulatedPool
from benchmarks.simulation.virtual_time import Station, run_virtual
from plato.context import MemoryContextStore
from plato.engine import Load, Prompt, Replica, SamplingParams, Segment
from plato.planning.protocol import PlanEvent, PlanRequest
from plato.prompting.model_tools import ModelTools
from plato.runs import Message, Mode, NodeOutput, RunFailed, RunFinished, RunRequest
from plato.scheduling.placement import KVAware, Placement
from plato.scheduling.scheduler import GraphScheduler
from plato.settings import MAX_NODES, Settings
from plato.testing.paced import Pace

REPLICAS = (1, 4, 16, 64, 256)
QUESTIONS_PER_REPLICA = (2, 4)
OBJECTIVE_S = 4.0
"""Of the p99 of the time to first text."""
WARM_UP_S = 6.0
MEASURED_S = 10.0
SCALE = 0.5
KV_TOKENS = 40_000
WIDTH = 16
CHUNK = 256
NEAR_LINEAR = 0.95
CHANGED = 32
"""Replicas that report their load between two decisions: about as many as messages come in for a
node."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a process's time; measured here, or a cluster's."""

    call_s: float
    """Of one handle call, at the caller."""
    message_s: float
    """Of one streamed message, at each end."""
    node_s: float
    """The scheduler's own work for a node: prompt, placement, bookkeeping."""


@dataclass(frozen=True, slots=True)
class Point:
    """One simulated load."""

    replicas: int
    schedulers: int
    questions: int
    tokens_per_s: float
    first_text_p50_s: float
    first_text_p99_s: float
    latency_p50_s: float
    cached_share: float
    scheduler_busy: float
    ingress_busy: float


def main() -> None:
    """Run the benchmark."""
    parser = arguments("scaleout", __doc__ or "")
    parser.add_argument("--plots", type=Path, default=RESULTS, help="folder for the plot")
    options = parser.parse_args()
    logging.getLogger("plato").setLevel(logging.ERROR)
    settings = Settings()
    tools = ModelTools.load(settings)
    call_s, message_s = measure_messages(200 if options.quick else 1000)
    costs = Costs(call_s, message_s, measure_node(tools))
    placement_ms = {count: measure_placement(count) for count in REPLICAS}
    sys.stderr.write(f"{costs}, placement in ms {placement_ms}\n")
    pool = REPLICAS[:4] if options.quick else REPLICAS
    points: list[Point] = []
    for replicas in pool:
        for schedulers in scheduler_counts(replicas, quick=options.quick):
            for per_replica in (2,) if options.quick else QUESTIONS_PER_REPLICA:
                began = time.perf_counter()
                point = run_virtual(
                    simulate(tools, costs, replicas, schedulers, per_replica * replicas)
                )
                points.append(point)
                sys.stderr.write(f"{point} in {time.perf_counter() - began:.0f} s\n")
    report = Report(
        "scaleout",
        settings.model_name,
        {
            "quick": options.quick,
            "pace": str(Pace()),
            "costs": str(costs),
            "objective_s": OBJECTIVE_S,
            "placement_ms": placement_ms,
        },
        metrics=metrics(points, placement_ms),
        rows=[{name: getattr(point, name) for name in Point.__slots__} for point in points],
    )
    draw(points, options.plots)
    report.write(options.json)


def scheduler_counts(replicas: int, *, quick: bool) -> list[int]:
    """Schedulers to try for a pool: one for 32, 16, 8 and 4 decoders."""
    counts = sorted({max(1, replicas // share) for share in (32, 16, 8, 4)})
    return counts[-1:] if quick else counts


async def simulate(
    tools: ModelTools, costs: Costs, replicas: int, schedulers: int, questions: int
) -> Point:
    """One load on one pool."""
    loop = asyncio.get_running_loop()
    decoders = {
        f"r{number}": SimulatedDecoder(f"r{number}", Pace(), KV_TOKENS, WIDTH, CHUNK)
        for number in range(replicas)
    }
    stations = [Station() for _ in range(schedulers)]
    ingresses = [Station() for _ in range(schedulers)]
    drivers = [
        new_scheduler(
            tools,
            SimulatedPool(
                decoders, station, call_s=costs.call_s + costs.node_s, message_s=costs.message_s
            ),
        )
        for station in stations
    ]
    graphs = fixed_graphs()
    chance = random.Random(0)
    first: list[float] = []
    latency: list[float] = []
    tokens = 0
    end_s = WARM_UP_S + MEASURED_S

    async def keep_asking(number: int) -> None:
        nonlocal tokens
        asked = 0
        # Not all at once, or they would go on in step.
        await asyncio.sleep(chance.uniform(0.0, WARM_UP_S / 2))
        while loop.time() < end_s:
            place = chance.randrange(schedulers)
            request = new_request(chance.choice(graphs), f"{number}-{asked}")
            asked += 1
            began = loop.time()
            shown: float | None = None
            async with aclosing(drivers[place].run(request)) as batches:
                async for batch in batches:
                    outputs = [event for event in batch if isinstance(event, NodeOutput)]
                    messages = sum(len(event.tokens) for event in outputs)
                    if messages:
                        await ingresses[place].work(messages * costs.message_s)
                    if WARM_UP_S <= loop.time() < end_s:
                        tokens += messages
                    if shown is None and any(event.number == 1 for event in outputs):
                        shown = loop.time() - began
                    if isinstance(batch[-1], RunFailed):
                        raise RuntimeError(batch[-1].message)
                    if isinstance(batch[-1], RunFinished) and loop.time() >= WARM_UP_S:
                        first.append(shown or 0.0)
                        latency.append(loop.time() - began)

    clients = [asyncio.create_task(keep_asking(number)) for number in range(questions)]
    await asyncio.sleep(end_s)
    busy = [max(one.busy_s for one in group) / end_s for group in (stations, ingresses)]
    for client in clients:
        client.cancel()
    results = await asyncio.gather(*clients, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    for driver in drivers:
        await driver.close()
    prompt_tokens = sum(decoder.prompt_tokens for decoder in decoders.values())
    return Point(
        replicas,
        schedulers,
        questions,
        tokens / MEASURED_S,
        percentile(first, 0.5),
        percentile(first, 0.99),
        percentile(latency, 0.5),
        sum(decoder.cached_tokens for decoder in decoders.values()) / max(1, prompt_tokens),
        *busy,
    )


def new_scheduler(tools: ModelTools, pool: SimulatedPool) -> GraphScheduler:
    """A real scheduler over simulated decoders, on the loop's own clock."""
    settings = Settings(
        max_runs=100_000,
        max_waiting_runs=100_000,
        node_deadline_s=1e6,
        run_deadline_s=1e6,
        lease_ttl_s=1e5,
        silence_s=1e6,
        ownership_ttl_s=1e5,
    )
    return GraphScheduler(
        settings,
        _Tools(
            tools.folder,
            tools.tokenizer,
            tools.template,
            tools.context_length,
            tools.fingerprint,
            tools.base_fingerprint,
            tools.calibration,
            tools.sampling,
        ),
        planner=_NoPlanner(),
        pool=pool,
        store=MemoryContextStore(),
        policy=KVAware(),
    )


class _Tools(ModelTools):
    """Simulated tokens have no text of their own."""

    def text(self, tokens: tuple[int, ...]) -> str:
        """A dot for each."""
        return "." * len(tokens)


class _NoPlanner:
    """Every question brings its plan."""

    def plan(self, request: PlanRequest) -> AsyncGenerator[PlanEvent]:
        """Never asked."""
        raise AssertionError("a question without a plan")


def new_request(graph: FixedGraph, name: str) -> RunRequest:
    """A question of its own tenant, with the plan of the workload."""
    return RunRequest(
        run_id=name,
        messages=(Message("user", f"{graph.question} ({name})"),),
        mode=Mode.PLATO,
        sampling=SamplingParams(),
        max_nodes=MAX_NODES,
        deadline_s=1e6,
        tenant=name,
        plan=graph.scaled(SCALE),
        exact_lengths=True,
    )


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
        load = Load(chance.randrange(16), prefill_tokens=100, kv_free=50_000)
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


def measure_node(tools: ModelTools) -> float:
    """Seconds of processor time that the scheduler itself takes for one node."""

    async def play() -> float:
        decoders = {"r0": SimulatedDecoder("r0", Pace(), KV_TOKENS, WIDTH, CHUNK)}
        driver = new_scheduler(tools, SimulatedPool(decoders, Station(), call_s=0.0, message_s=0.0))
        nodes = 0
        began = time.process_time()
        for number, graph in enumerate(fixed_graphs()):
            request = new_request(graph, f"cost-{number}")
            nodes += len(request.plan or ())
            async with aclosing(driver.run(request)) as batches:
                async for _ in batches:
                    pass
        spent = time.process_time() - began
        await driver.close()
        return spent / nodes

    return run_virtual(play())


def measure_messages(count: int) -> tuple[float, float]:
    """Seconds of a handle call, and of a streamed message, between two processes of Ray Serve."""
    from deployments.local import start_ray  # isort: skip
    from ray import serve

    from benchmarks.simulation.echo import Echo

    with start_ray(cpus=2):
        echo: Any = Echo
        handle: Any = serve.run(echo.bind(), name="echo", route_prefix=None)

        async def play() -> tuple[float, float]:
            for _ in range(20):
                await handle.call.remote()
            began = time.perf_counter()
            for _ in range(count // 5):
                await handle.call.remote()
            call_s = (time.perf_counter() - began) / (count // 5)
            began = time.perf_counter()
            async for _ in handle.options(stream=True).count.remote(count):
                pass
            return call_s, (time.perf_counter() - began) / count

        return asyncio.run(play())


def metrics(points: list[Point], placement_ms: dict[int, float]) -> dict[str, Any]:
    """What the pool can do, and what it takes."""
    best: dict[tuple[int, int], Point] = {}
    for point in points:
        key = point.replicas, point.schedulers
        within = point.first_text_p99_s <= OBJECTIVE_S
        if within and (key not in best or best[key].tokens_per_s < point.tokens_per_s):
            best[key] = point
    highest = {
        replicas: max(p.tokens_per_s for (count, _), p in best.items() if count == replicas)
        for replicas in {count for count, _ in best}
    }
    alone = highest[min(highest)] / min(highest)
    enough = [
        replicas / schedulers
        for (replicas, schedulers), point in best.items()
        if replicas > 1 and point.tokens_per_s >= NEAR_LINEAR * highest[replicas]
    ]
    found: dict[str, Any] = {
        f"tokens_per_s_{replicas}": rate for replicas, rate in sorted(highest.items())
    }
    return found | {
        "linear_share_64": highest[64] / (64 * alone) if 64 in highest else None,
        "replicas_per_scheduler": max(enough, default=None),
        "placement_ms_256": placement_ms[256],
    }


def draw(points: list[Point], folder: Path) -> None:
    """Throughput by replicas for every number of schedulers, and the p99 of the first text."""
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        sys.stderr.write(f"no plot: {error}; pip install 'plato-serve[benchmark]'\n")
        return
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4))
    for schedulers in sorted({point.schedulers for point in points}):
        chosen = [point for point in points if point.schedulers == schedulers]
        counts = sorted({point.replicas for point in chosen})
        rates = [max(p.tokens_per_s for p in chosen if p.replicas == count) for count in counts]
        waits = [min(p.first_text_p99_s for p in chosen if p.replicas == count) for count in counts]
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

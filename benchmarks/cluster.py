"""Does a cluster scale as predicted?

    python -m benchmarks.cluster --decoders 1,2,4,8 [--address auto] [--engine paced]
                                 [--quick] [--json FILE] [--plots FOLDER] [NAME=VALUE ...]

Deploys the application with each number of decoders in turn on a Ray cluster, loads it with a
closed loop of a fixed number of questions per decoder, and measures throughput, latency and
efficiency: the throughput of a decoder over that of one in the smallest pool. Each result stands
beside what the simulation of `benchmarks.scaleout` predicts for the same load, with the costs of
the control path and the step times of the engine measured in the same run.

Without `--address` the cluster is made of several nodes on this machine. With it, it is left as it
was found, but for a Serve application that this command deploys and removes. NAME=VALUE are
settings as of `plato serve`; a cluster of several machines needs `redis_url`, and sends decoders to
their nodes with `decoder_resource`. The load comes from this process and passes by the ingresses;
its share of a processor is reported, and should stay far below 1.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from argparse import Namespace
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common.closed_loop import Figures, Load, closed_loop
from benchmarks.common.measured_pace import measure_pace
from benchmarks.common.ray_cluster import DECODER, SERVICE, connected, local_nodes
from benchmarks.common.report import RESULTS, Report, arguments
from benchmarks.simulation.costs import measure_costs
from benchmarks.simulation.pool import DecoderSpec
from benchmarks.simulation.service import Service
from plato.context.embedded import EmbeddedValkey
from plato.engine import EngineStats
from plato.prompting.model_tools import ModelTools
from plato.runs import RunEvents, RunRequest
from plato.settings import UPSTREAM_ENGINE, VLLM_ENGINE, Settings, read_settings
from plato.testing.paced import Pace

APP = "plato-experiment"
ENGINES = {
    "torch": "torch",
    "vllm": VLLM_ENGINE,
    "openai": UPSTREAM_ENGINE,
    "paced": "plato.testing.paced:paced_engine",
}
SLOW = Pace(
    step_ms=((1, 60.0), (4, 68.0), (16, 100.0)),
    prefill_tokens_per_s=4000.0,
    kv_bytes_per_token=1 << 15,
)
"""About as slow as a model of 70 billion parameters: several decoders of it fit on two cores."""
DECODERS_PER_SCHEDULER = 16
PER_DECODER = 4
DEADLINE_S = 300.0

WARM_UP_S, MEASURED_S = 15.0, 45.0
QUICK = 1 / 3

Row = dict[str, Any]


def main() -> None:
    """Run the benchmark."""
    options = parse()
    logging.getLogger("plato").setLevel(logging.ERROR)
    given: dict[str, Any] = dict(setting.split("=", 1) for setting in options.settings)
    with ExitStack() as stack:
        if options.address is None:
            given |= {"decoder_resource": DECODER, "service_resource": SERVICE}
            given["redis_url"] = stack.enter_context(EmbeddedValkey()).url
            stack.enter_context(local_nodes(max(options.decoders)))
        else:
            stack.enter_context(connected(options.address))
        bench = Bench(options, given)
        rows = [bench.measure(decoders) for decoders in options.decoders]
    report = Report(
        "cluster",
        bench.settings(1).model_name,
        {
            "quick": options.quick,
            "address": options.address,
            "engine": options.engine,
            "questions_per_decoder": options.questions,
            "pace": asdict(bench.pace),
            "costs": asdict(bench.costs),
        },
        metrics=metrics(rows),
        rows=rows,
    )
    draw(rows, options.plots)
    report.write(options.json, {f"{row['decoders']} decoders": row for row in rows})


def parse(given: Sequence[str] | None = None) -> Namespace:
    """Arguments, by default those of the command line."""
    parser = arguments("cluster", __doc__ or "")
    parser.add_argument("--address", help="of a running Ray cluster; default: nodes started here")
    parser.add_argument("--decoders", type=counts, default=(1, 2, 4), help="default: 1,2,4")
    parser.add_argument("--engine", choices=ENGINES, default="paced")
    parser.add_argument("--questions", type=int, default=PER_DECODER, help="at a time per decoder")
    parser.add_argument("--plots", type=Path, default=RESULTS, help="folder for the plot")
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="as of `plato serve`")
    options = parser.parse_args(given)
    if options.engine != "paced" and options.decoders[0] != 1:
        parser.error("--decoders must contain 1: step times of an engine are measured with one")
    if wrong := [setting for setting in options.settings if "=" not in setting]:
        parser.error(f"{wrong[0]!r} is no setting; write NAME=VALUE")
    return options


def counts(text: str) -> tuple[int, ...]:
    """Numbers of decoders, ascending. Raises `ValueError`."""
    found = tuple(sorted({int(part) for part in text.split(",")}))
    if found[0] < 1:
        raise ValueError(f"{text!r} has a pool without decoders")
    return found


class Bench:
    """Deploys, loads and predicts; a Ray cluster must be connected."""

    def __init__(self, options: Namespace, given: dict[str, Any]) -> None:
        self._options = options
        self._given = given
        self.tools = ModelTools.load(self.settings(1))
        self.costs = measure_costs(self.tools)
        self.pace = SLOW
        """Of a decoder; of other engines than the paced one it is measured with the first pool."""

    def settings(self, decoders: int) -> Settings:
        """Settings of a pool with so many decoders."""
        fields: dict[str, Any] = {
            "engine": ENGINES[self._options.engine],
            "decoders": decoders,
            "schedulers": math.ceil(decoders / DECODERS_PER_SCHEDULER),
            # Nothing waits outside of a decoder, also if one scheduler gets all questions.
            "max_runs": 2 * decoders * self._options.questions,
            "node_deadline_s": DEADLINE_S,
            "equal_work": True,
            "log_level": "ERROR",
        }
        if self._options.engine == "paced":
            fields |= {"decoder_cpus": 0.25, "decoder_threads": 1}
            fields["engine_options"] = {"pace": asdict(SLOW)}
        return read_settings(fields | self._given)

    def measure(self, decoders: int) -> Row:
        """Load one pool, and predict the same."""
        settings = self.settings(decoders)
        share = QUICK if self._options.quick else 1.0
        load = Load(
            decoders * self._options.questions,
            warm_up_s=share * WARM_UP_S,
            measured_s=share * MEASURED_S,
            deadline_s=DEADLINE_S,
            name=f"cluster-{decoders}-",
        )
        with deployed(settings):
            found, kv_tokens, generator = asyncio.run(self._load(load, settings))
        spec = DecoderSpec(
            self.pace,
            kv_tokens,
            settings.max_sequences,
            settings.prefill_chunk,
            settings.stream_interval_s,
        )
        service = Service(decoders, settings.schedulers, spec, settings, self.costs)
        predicted = service.answer(self.tools, load)
        row = {
            "decoders": decoders,
            "schedulers": settings.schedulers,
            "questions": load.questions,
            **asdict(found),
            **{f"predicted_{name}": value for name, value in asdict(predicted.figures).items()},
            "of_prediction": found.tokens_per_s / predicted.figures.tokens_per_s,
            "predicted_scheduler_busy": predicted.scheduler_busy,
            "generator_cpu": generator,
        }
        sys.stderr.write(f"{row}\n")
        return row

    async def _load(self, load: Load, settings: Settings) -> tuple[Figures, int, float]:
        """The figures, KV tokens of a decoder, and the share of a processor that loading took."""
        from ray import serve

        from deployments.handles import ask, stream

        scheduler: Any = serve.get_deployment_handle("SchedulerService", APP).options(stream=True)
        decoder: Any = serve.get_deployment_handle("Decoder", APP)

        def drive(request: RunRequest) -> AsyncGenerator[RunEvents]:
            return stream(lambda: scheduler.run.remote(request))

        if self._options.engine != "paced" and settings.decoders == 1:
            self.pace = await measure_pace(drive)
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        figures = await closed_loop(drive, load)
        busy = (time.process_time() - began_cpu_s) / (time.perf_counter() - began_s)
        stats: EngineStats = await ask(decoder.stats.remote)
        return figures, stats.kv_capacity, busy


@contextmanager
def deployed(settings: Settings) -> Iterator[None]:
    """The application on the connected cluster, without HTTP unless Serve runs there already."""
    from ray import serve

    from deployments.app import build

    serve.start(proxy_location="Disabled")
    serve.run(build(settings), name=APP, route_prefix=f"/{APP}")
    try:
        yield
    finally:
        serve.delete(APP)


def metrics(rows: list[Row]) -> dict[str, Any]:
    """Throughput and efficiency by number of decoders, measured and predicted."""
    first = rows[0]
    found: dict[str, Any] = {}
    for row in rows:
        decoders, share = row["decoders"], first["decoders"] / row["decoders"]
        rate, predicted = row["tokens_per_s"], row["predicted_tokens_per_s"]
        found |= {
            f"tokens_per_s_{decoders}": rate,
            f"predicted_tokens_per_s_{decoders}": predicted,
            f"prediction_error_{decoders}": predicted / rate - 1,
            f"efficiency_{decoders}": share * rate / first["tokens_per_s"],
            f"predicted_efficiency_{decoders}": share * predicted / first["predicted_tokens_per_s"],
        }
    found["least_of_prediction"] = min(row["of_prediction"] for row in rows)
    found["generator_cpu"] = max(row["generator_cpu"] for row in rows)
    return found


def draw(rows: list[Row], folder: Path) -> None:
    """Throughput and latency by number of decoders, measured and predicted."""
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        sys.stderr.write(f"no plot: {error}; pip install 'plato-serve[benchmark]'\n")
        return
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4))
    decoders = [row["decoders"] for row in rows]
    shown = {"tokens_per_s": "tokens/s", "first_text_p99_s": "p99 of the time to first text, s"}
    for panel, (name, label) in zip(panels, shown.items(), strict=True):
        panel.plot(decoders, [row[name] for row in rows], "o-", label="measured")
        panel.plot(decoders, [row[f"predicted_{name}"] for row in rows], "x--", label="predicted")
        panel.set(xlabel="decoders", ylabel=label, ylim=(0, None))
        panel.legend()
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("svg", "png"):
        figure.savefig(folder / f"cluster.{kind}", dpi=110)


if __name__ == "__main__":
    main()

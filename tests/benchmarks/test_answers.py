"""The benchmarks' own arithmetic, over a real runtime where it needs one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.ablations import measure as measure_ablations
from benchmarks.ablations import metrics as ablation_metrics
from benchmarks.answering.asking import GIVEN, PLATO, SEQUENTIAL, RuntimeAsker
from benchmarks.answering.comparing import VIAS, metrics, throughput
from benchmarks.answering.ideal import ideal_of, plan_work, reuse_of
from benchmarks.answering.questions import Question
from benchmarks.common.workload import fixed_graphs
from benchmarks.publish import report
from plato.runs import Node
from plato.runtime import Runtime
from plato.settings import Settings
from plato.testing.paced import Pace

in_one_loop = pytest.mark.asyncio(loop_scope="module")
"""For what shares a runtime: the model is loaded once."""
QUICK_GRAPHS = ("first-bicycle", "diamond", "chain-4")

PACE = Pace()
SLOW = pytest.mark.slow
DIAMOND = Question(
    "diamond",
    "mixed",
    "What is a diamond?",
    (
        Node(1, "Its shape", (), 6),
        Node(2, "Its left side", (1,), 6),
        Node(3, "Its right side", (1,), 6),
        Node(4, "Its end", (2, 3), 6),
    ),
)


@pytest.fixture(scope="module")
def settings(tiny_model_folder: str) -> Settings:
    # Not float32: its threads are OpenMP's, which a busy neighbour slows down a hundredfold.
    return Settings(
        model=tiny_model_folder,
        served_model_name="tiny",
        kv_budget_mb=64,
        # Of the questions that warm up; the others say how long their answers are.
        node_max_tokens=8,
        sequential_max_tokens=8,
        equal_work=True,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asker(settings: Settings) -> AsyncIterator[RuntimeAsker]:
    async with await Runtime.open(settings) as runtime:
        yield RuntimeAsker(runtime, settings)


@in_one_loop
@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(graph, id=graph.name, marks=[] if graph.name in QUICK_GRAPHS else [SLOW])
        for graph in fixed_graphs()
    ],
)
async def test_every_graph_is_decoded_as_it_stands(asker: RuntimeAsker, graph: object) -> None:
    question = Question.of(graph, 0.05)  # type: ignore[arg-type]
    answered = await asker.ask(question, PLATO)
    nodes = answered.info["graph"]["nodes"]
    assert [(n["tokens"], tuple(n["dependencies"])) for n in nodes] == [
        (part.max_tokens, part.dependencies) for part in question.parts
    ]
    assert [n["title"] for n in nodes] == [part.title for part in question.parts]
    plan = answered.info["plan"]
    assert plan["source"] == "model"
    assert plan["steps"] < plan["tokens"]
    work = plan_work(answered)
    assert work is not None
    assert len(work.lines) == len(nodes)
    assert list(work.lines) == sorted(work.lines)
    assert work.steps == plan["steps"]


@in_one_loop
async def test_ways_do_equal_work_and_reuse_is_counted(asker: RuntimeAsker) -> None:
    sequential = await asker.ask(DIAMOND, SEQUENTIAL)
    given = await asker.ask(DIAMOND, GIVEN)
    assert sequential.tokens == given.tokens == DIAMOND.tokens
    assert given.info["plan"]["source"] == "request"
    assert plan_work(given) is None
    tools = asker._runtime.tools
    reuse = reuse_of(tools, given)
    assert 0 < reuse["cached"] <= sum(n["prompt_tokens"] for n in given.info["graph"]["nodes"])
    assert reuse["cached"] >= 0.9 * reuse["cacheable"]
    ideal = ideal_of(given, reuse["cacheable_by_part"], PACE)
    assert 0 < ideal.first_text_s < ideal.latency_s


@pytest.mark.slow
async def test_reuse_that_is_turned_off_shows(settings: Settings) -> None:
    engine = "benchmarks.engine.variants:engine_without_reuse"
    without = settings.model_copy(update={"engine": engine})
    async with await Runtime.open(without) as runtime:
        answered = await RuntimeAsker(runtime, without).ask(DIAMOND, GIVEN)
        reuse = reuse_of(runtime.tools, answered)
    assert reuse["cached"] == 0
    assert reuse["cacheable"] > 0
    assert reuse["computed"] == sum(n["prompt_tokens"] for n in answered.info["graph"]["nodes"])


def fixed_row(via: str, way: str, latency_s: float, concurrency: int = 1) -> dict[str, object]:
    return {
        "via": via,
        "way": way,
        "kind": "mixed",
        "question": "q",
        "concurrency": concurrency,
        "tokens": 100,
        "latency_s": latency_s,
        "makespan_s": latency_s,
        "first_text_s": 0.5,
        "bound_share": 0.8,
        "first_text_bound_share": 0.5,
        "cached": 9,
        "cacheable": 10,
    }


def test_metrics_are_ratios_within_the_run() -> None:
    rows = [
        fixed_row(via, way, seconds, concurrency)
        for via in VIAS
        for way, seconds in (("sequential", 8.0), ("plato", 4.0), ("skeleton", 2.0))
        for concurrency in (1, 4, 16)
    ]
    rows.append(fixed_row("runtime", GIVEN.name, 1.0))
    found = metrics(rows)
    assert found["speedup_mixed"] == found["speedup_mixed_runtime"] == 2.0
    assert found["speedup_given"] == 8.0
    assert found["embedded_over_runtime"] == 1.0
    assert found["throughput_ratio_1"] == found["throughput_ratio_16"] == 2.0
    assert found["cached_over_cacheable"] == 0.9
    assert found["bound_share_http"] == 0.8
    assert throughput(rows, 4, PLATO) == 25.0


@pytest.mark.slow
async def test_ablations_measure_every_variant(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.ablations.LENGTHS", (64,))
    rows = await measure_ablations(settings, PACE, [DIAMOND], repeats=1)
    variants = {row["variant"] for row in rows}
    assert {"all", "without pipelining", "without priority", "without reuse", "width 1"} <= variants
    found = ablation_metrics(rows)
    assert found["prefill_cut_64"] > 0.5
    steps = {row["variant"]: row["plan_steps"] for row in rows}
    assert steps["without forced_tokens"] > steps["all"]


def test_the_report_is_made_of_what_is_stored() -> None:
    folder = Path("benchmarks/results")
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    assert found
    written = (folder / "REPORT.md").read_text("utf-8")
    assert written == report(found)

"""The spans of runs whose decoders and schedulers die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from plato.runs import NodeOutput, RunEvents, RunRequest, RunState
from plato.runs.failover import follow_with_failover
from plato.settings import Settings
from tests.scheduling.cluster import Cluster, Process
from tests.scheduling.helpers import DIAMOND, of, parts, question, until

pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")

from plato.tracing.tracing import Tracing
from tests.tracing.collector import SPAN, TRACE, Collector, Seen

LENGTH = 40


def diamond() -> RunRequest:
    return question(
        plan=parts(*DIAMOND, max_tokens=LENGTH),
        exact_lengths=True,
        created_unix_s=time.time(),
        traceparent=f"00-{TRACE}-{SPAN}-01",
    )


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with Collector() as running:
        yield running


@pytest.fixture
async def traced(cluster: Cluster, collector: Collector) -> AsyncIterator[Cluster]:
    """Slow decoders, and a second scheduler that is traced: what dies does not export."""
    cluster.tracing = Tracing(Settings(), collector.url, "second")
    await cluster.schedulers[1].scheduler.close()
    cluster.schedulers[1] = Process("second", cluster)
    for switch in cluster.pool.switches.values():
        switch.slow_s = 0.02
    yield cluster
    await cluster.tracing.close()


async def spans_of(collector: Collector, asked: RunRequest) -> list[Seen]:
    return await asyncio.to_thread(collector.run, asked.run_id)


def phases(spans: list[Seen], node: str) -> list[Seen]:
    (parent,) = [span for span in spans if span.name == node]
    return [span for span in spans if span.parent == parent.id]


def check_times(spans: list[Seen], began_s: float) -> None:
    """All are of one trace, within their parents, and took place since `began_s`."""
    by_id = {span.id: span for span in spans}
    for span in spans:
        assert span.trace == TRACE
        assert began_s - 0.01 <= span.begin / 1e9 <= span.end / 1e9 <= time.time() + 0.01
        assert span.parent == SPAN or span.within(by_id[span.parent])
    nodes = {span.attributes.get("plato.node.number"): span for span in spans}
    for number, dependency in ((2, 1), (3, 1), (4, 2), (4, 3)):
        assert nodes[dependency].end <= nodes[number].begin


async def test_an_attempt_that_fails_is_followed_by_another(
    traced: Cluster, collector: Collector
) -> None:
    asked, began_s = diamond(), time.time()
    killed = ""
    async with aclosing(traced.schedulers[1].scheduler.run(asked)) as batches:
        async for batch in batches:
            if not killed and of(NodeOutput, list(batch)):
                killed, _ = traced.pool.requests[0]
                traced.pool.kill(killed)
    spans = await spans_of(collector, asked)
    check_times(spans, began_s)
    (node,) = [span for span in spans if span.name == "node 1"]
    attempts = phases(spans, "node 1")
    assert [span.name for span in attempts] == 2 * ["queue", "prefill", "decode"]
    assert [span.failed for span in attempts] == [False, False, True, False, False, False]
    ((name, at, values),) = node.events
    assert (name, at) == ("retry", attempts[2].end)
    assert values["plato.replica"] == killed != node.attributes["plato.replica"]
    assert values["plato.reason"] == attempts[2].message
    assert node.attributes["plato.node.attempts"] == 2
    assert not node.failed


async def test_an_attached_run_that_is_taken_over_is_one_trace(
    traced: Cluster, collector: Collector
) -> None:
    first, second = traced.schedulers
    asked, began_s = diamond(), time.time()
    state, died_s = RunState(asked), 0.0

    async def drive(request: RunRequest, received: RunEvents | None) -> AsyncGenerator[RunEvents]:
        process = first if received is None else second
        async with aclosing(process.drive(request, received)) as batches:
            async for batch in batches:
                yield batch

    async with aclosing(follow_with_failover(drive, state, 20.0)) as batches:
        async for batch in batches:
            if not died_s and any(event.number == 2 for event in of(NodeOutput, list(batch))):
                died_s = time.time()
                await first.kill()
    await check_takeover(collector, asked, began_s, died_s)


async def test_a_detached_run_that_is_adopted_is_one_trace(
    traced: Cluster, collector: Collector
) -> None:
    first, second = traced.schedulers
    asked, began_s = diamond(), time.time()
    await first.scheduler.open(asked)
    run = first.scheduler.runs.find("", asked.run_id)
    assert run is not None
    await until(lambda: bool(run.state.node(2).tokens))
    died_s = time.time()
    await first.kill()
    await until(lambda: asked.run_id in second.scheduler.runs)
    await check_takeover(collector, asked, began_s, died_s)


async def check_takeover(
    collector: Collector, asked: RunRequest, began_s: float, died_s: float
) -> None:
    spans = await spans_of(collector, asked)
    check_times(spans, began_s)
    (run,) = [span for span in spans if span.name == "invoke_workflow plato"]
    ((_, taken_over, _),) = [event for event in run.events if event[0] == "takeover"]
    assert died_s <= taken_over / 1e9 <= time.time()
    assert run.attributes["plato.outcome"] == "done"
    (first_node,) = [span for span in spans if span.name == "node 1"]
    assert first_node.end / 1e9 <= died_s
    lost = [span for span in phases(spans, "node 2") if span.failed]
    assert [span.name for span in lost] == ["decode"]
    assert lost[0].begin / 1e9 <= died_s
    assert lost[0].end >= taken_over

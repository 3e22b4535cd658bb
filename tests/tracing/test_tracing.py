"""Traces as a collector gets them, of questions to a real server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio

from plato.api.service import RunService
from plato.errors import UnavailableError
from plato.runs import NodeOutput, RunEvents, RunState
from plato.runtime import Runtime
from plato.settings import Settings
from tests.serving import serving

pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")

from plato.tracing import tracing
from tests.tracing.collector import SPAN, TRACE, Collector, Seen

SECRET = "zanzibar"
DIAMOND = [
    {"title": "Where to look", "max_tokens": 8},
    {"title": f"The frame of {SECRET}", "dependencies": [1], "max_tokens": 8},
    {"title": "The brakes", "dependencies": [1], "max_tokens": 8},
    {"title": "What to decide", "dependencies": [2, 3], "max_tokens": 8},
]
PHASES = ["queue", "prefill", "decode"]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=of the collector")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        yield running


def settings_of(folder: str, collector: Collector, **fields: Any) -> Settings:
    return Settings(
        model=folder,
        served_model_name="tiny",
        kv_budget_mb=16,
        temperature=0.0,
        lease_ttl_s=10,
        otlp_endpoint=collector.url,
        equal_work=True,
        **fields,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(tiny_model_folder: str, collector: Collector) -> AsyncIterator[Runtime]:
    async with await Runtime.open(settings_of(tiny_model_folder, collector)) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(runtime: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(runtime.service, runtime.settings, tracing=runtime.tracing) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        yield client


def question(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"Shall I buy a {SECRET}?"}], **fields}


async def ask(http: httpx.AsyncClient, *, flags: str = "01", **fields: Any) -> httpx.Response:
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-{flags}"}
    return await http.post("/v1/chat/completions", json=question(**fields), headers=headers)


async def trace_of(collector: Collector, response: httpx.Response) -> list[Seen]:
    return await asyncio.to_thread(collector.run, response.headers["x-request-id"])


def named(spans: list[Seen], name: str) -> Seen:
    (found,) = [span for span in spans if span.name == name]
    return found


async def test_a_diamond_is_one_trace_below_the_clients(
    http: httpx.AsyncClient, collector: Collector
) -> None:
    response = await ask(http, plato={"mode": "plato", "plan": DIAMOND})
    spans = await trace_of(collector, response)
    root = named(spans, "POST /v1/chat/completions")
    run = named(spans, "invoke_workflow plato")
    assert (root.trace, root.parent) == (TRACE, SPAN)
    assert response.headers["traceresponse"] == f"00-{TRACE}-{root.id}-01"
    assert root.attributes["http.response.status_code"] == 200
    assert root.attributes["plato.complete"]
    assert run.within(root)
    assert named(spans, "admission").within(run)
    plan = named(spans, "plan")
    assert plan.within(run)
    assert [values["plato.node.number"] for _, _, values in plan.events] == [1, 2, 3, 4]
    nodes = [named(spans, f"node {number}") for number in (1, 2, 3, 4)]
    for node in nodes:
        assert node.within(run)
        phases = [span for span in spans if span.parent == node.id]
        assert [phase.name for phase in phases] == PHASES
        assert all(phase.within(node) for phase in phases)
        assert [phase.end for phase in phases] == [*(p.begin for p in phases[1:]), node.end]
        for dependency in node.attributes["plato.node.dependencies"]:
            assert nodes[dependency - 1].end <= node.begin
    assert nodes[1].begin < nodes[2].end
    assert nodes[2].begin < nodes[1].end
    assert not any(span.failed for span in spans)


async def test_the_spans_say_what_the_response_says(
    http: httpx.AsyncClient, collector: Collector
) -> None:
    response = await ask(http, plato={"mode": "plato", "plan": DIAMOND})
    spans, plato = await trace_of(collector, response), response.json()["plato"]
    for report in plato["graph"]["nodes"]:
        values = named(spans, f"node {report['number']}").attributes
        assert values["gen_ai.operation.name"] == "chat"
        assert values["gen_ai.request.model"] == "tiny"
        assert values["gen_ai.usage.input_tokens"] == report["prompt_tokens"]
        assert values["gen_ai.usage.output_tokens"] == report["tokens"]
        assert values["gen_ai.usage.cache_read.input_tokens"] == report["cached_tokens"]
        assert values["plato.predicted_cached_tokens"] == report["predicted_cached_tokens"]
        assert values["gen_ai.response.finish_reasons"] == [report["finish"]]
        assert values["plato.replica"] == report["replica"] == "local-0"
        first_token_s = report["first_token_s"] - report["started_s"]
        assert values["gen_ai.response.time_to_first_chunk"] == pytest.approx(
            first_token_s, abs=0.01
        )
    run = named(spans, "invoke_workflow plato").attributes
    assert run["plato.run.id"] == plato["run"]
    assert run["plato.mode"] == "plato"
    assert run["plato.outcome"] == "done"
    assert run["gen_ai.response.finish_reasons"] == [response.json()["choices"][0]["finish_reason"]]
    usage = response.json()["usage"]
    assert run["plato.usage.prompt_tokens"] == usage["prompt_tokens"]
    assert run["plato.usage.completion_tokens"] == usage["completion_tokens"]


async def test_a_decoded_plan_has_its_tokens_and_parts_begin_within_it(
    http: httpx.AsyncClient, collector: Collector
) -> None:
    response = await ask(http, plato={"mode": "plato", "plan": DIAMOND, "decode_plan": True})
    spans, report = await trace_of(collector, response), response.json()["plato"]["plan"]
    plan = named(spans, "plan")
    assert plan.attributes["plato.plan.source"] == "model"
    assert plan.attributes["gen_ai.usage.output_tokens"] == report["tokens"] > 0
    assert (plan.end - plan.begin) / 1e9 == pytest.approx(
        report["finished_s"] - report["started_s"], abs=0.05
    )
    assert plan.begin < plan.events[0][1] <= named(spans, "node 1").begin
    assert len(plan.events) == report["nodes"]


async def test_a_sequential_answer_has_one_node_and_no_plan(
    http: httpx.AsyncClient, collector: Collector
) -> None:
    response = await ask(http, plato={"mode": "sequential"}, max_tokens=4)
    spans = await trace_of(collector, response)
    names = sorted(span.name for span in spans if span.attributes.get("plato.node.attempt") is None)
    assert names == sorted(
        ["POST /v1/chat/completions", "invoke_workflow plato", "admission", "node 1"]
    )


async def test_streams_count_until_their_last_byte(
    http: httpx.AsyncClient, collector: Collector
) -> None:
    response = await ask(http, stream=True, max_tokens=8)
    spans = await trace_of(collector, response)
    assert named(spans, "invoke_workflow plato").within(named(spans, "POST /v1/chat/completions"))


async def test_who_asks_without_a_trace_gets_a_new_one(
    http: httpx.AsyncClient, collector: Collector
) -> None:
    for headers in ({}, {"traceparent": "00-nonsense"}):
        body = question(max_tokens=4)
        response = await http.post("/v1/chat/completions/", json=body, headers=headers)
        root = named(await trace_of(collector, response), "POST /v1/chat/completions")
        assert root.parent == ""
        assert root.trace != TRACE
        assert root.resource["service.name"] == "plato"
        assert root.resource["service.instance.id"] == "runtime"
        assert root.resource["deployment.environment.name"] == "test"


async def test_detached_runs_and_the_library_are_traced_too(
    http: httpx.AsyncClient, runtime: Runtime, collector: Collector
) -> None:
    opened = await http.post("/v1/runs", json=question(max_tokens=4))
    spans = await asyncio.to_thread(collector.run, opened.json()["id"])
    assert named(spans, "invoke_workflow plato").parent == named(spans, "POST /v1/runs").id
    answer = await runtime.ask("Why?", max_tokens=4)
    spans = await asyncio.to_thread(collector.run, answer.report.run_id)
    assert named(spans, "invoke_workflow plato").parent == ""


async def test_what_the_client_does_not_sample_is_not_exported(
    http: httpx.AsyncClient, collector: Collector
) -> None:
    left_out = await ask(http, flags="00", max_tokens=4)
    assert left_out.headers["traceresponse"].endswith("-00")
    await trace_of(collector, await ask(http, max_tokens=4))
    run_id = left_out.headers["x-request-id"]
    assert not [span for span in collector.spans if span.attributes.get("plato.run.id") == run_id]


async def test_requests_that_ask_nothing_are_not_traced(http: httpx.AsyncClient) -> None:
    for path in ("/v1/models", "/healthz", "/v1/runs"):
        assert "traceresponse" not in (await http.get(path)).headers


async def test_errors_are_marked_where_they_belong(
    http: httpx.AsyncClient, collector: Collector
) -> None:
    refused = await ask(http, temperature=7)
    assert refused.status_code == 400
    late = await ask(http, plato={"mode": "sequential", "deadline_s": 0.05}, max_tokens=1500)
    spans = await trace_of(collector, late)
    root, run = named(spans, "POST /v1/chat/completions"), named(spans, "invoke_workflow plato")
    assert root.failed
    assert root.attributes["http.response.status_code"] == late.status_code >= 500
    assert root.attributes["error.type"] == late.json()["error"]["code"]
    assert run.failed
    assert run.attributes["plato.outcome"] == "failed"
    assert run.attributes["error.type"] == root.attributes["error.type"]
    assert "deadline" in run.message
    (bad,) = [
        span for span in collector.spans if span.attributes.get("http.response.status_code") == 400
    ]
    assert bad.attributes["error.type"] == refused.json()["error"]["code"]
    assert not bad.failed


class LostService:
    """A service whose schedulers are all lost in the middle of an answer."""

    def __init__(self, service: RunService) -> None:
        self._service = service

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    async def answer(self, state: RunState) -> AsyncGenerator[RunEvents]:
        async with aclosing(self._service.answer(state)) as batches:
            async for events in batches:
                yield events
                if any(isinstance(event, NodeOutput) for event in events):
                    raise UnavailableError("no scheduler is left")


async def test_an_error_in_a_stream_is_one_of_the_request(
    runtime: Runtime, collector: Collector
) -> None:
    service = cast(RunService, LostService(runtime.service))
    body = question(stream=True, max_tokens=1500, plato={"mode": "sequential"})
    async with (
        serving(service, runtime.settings, tracing=runtime.tracing) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    root = named(await trace_of(collector, response), "POST /v1/chat/completions")
    assert root.failed
    assert root.attributes["error.type"] == "unavailable"


async def test_a_client_that_leaves_is_a_cancellation_and_no_error(
    http: httpx.AsyncClient, collector: Collector
) -> None:
    body = question(stream=True, max_tokens=1500, plato={"mode": "sequential"})
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        await anext(response.aiter_lines())
    spans = await trace_of(collector, response)
    run = named(spans, "invoke_workflow plato")
    assert run.attributes["plato.outcome"] == "cancelled"
    assert named(spans, "node 1").attributes["plato.outcome"] == "cancelled"
    assert not any(span.failed for span in spans)
    assert not named(spans, "POST /v1/chat/completions").attributes["plato.complete"]


async def test_texts_are_in_spans_only_if_a_setting_says_so(
    http: httpx.AsyncClient, tiny_model_folder: str, collector: Collector
) -> None:
    options = {"plato": {"mode": "plato", "plan": DIAMOND}}
    response = await ask(http, **options)
    await trace_of(collector, response)
    assert SECRET.encode() not in collector.raw
    settings = settings_of(tiny_model_folder, collector, otlp_texts=True)
    async with await Runtime.open(settings) as runtime:
        answer = await runtime.ask(f"Shall I buy a {SECRET}?", **options)
    spans = await asyncio.to_thread(collector.run, answer.report.run_id)
    run = named(spans, "invoke_workflow plato").attributes
    (asked,) = json.loads(run["gen_ai.input.messages"])
    (answered,) = json.loads(run["gen_ai.output.messages"])
    assert asked["parts"][0]["content"] == f"Shall I buy a {SECRET}?"
    assert answered["parts"][0]["content"] == answer.text
    assert SECRET in named(spans, "node 2").attributes["plato.node.title"]


async def test_a_collector_that_hangs_delays_no_answer_and_the_end_by_a_deadline(
    tiny_model_folder: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_S", 0.5)
    with Collector() as hanging:
        hanging.answers.clear()
        settings = settings_of(tiny_model_folder, hanging)
        async with await Runtime.open(settings) as runtime:
            began = time.monotonic()
            for _ in range(3):
                await runtime.ask("Why?", max_tokens=2)
            assert time.monotonic() - began < 5
            closing = time.monotonic()
        assert time.monotonic() - closing < 5


async def test_what_is_left_is_sent_at_the_end(
    tiny_model_folder: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    async with await Runtime.open(settings_of(tiny_model_folder, collector)) as runtime:
        answer = await runtime.ask("Why?", max_tokens=2)
    assert collector.run(answer.report.run_id)
    assert collector.headers[-1]["x-key"] == "of the collector"

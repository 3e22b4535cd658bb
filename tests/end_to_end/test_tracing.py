"""Traces of real servers, whose processes send what they have when they end."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.end_to_end.server import Server
from tests.end_to_end.waiting import wait_until

pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")

from tests.tracing.collector import SPAN, TRACE, Collector

PLAN = [
    {"title": "Where to look", "max_tokens": 8},
    {"title": "The frame", "dependencies": [1], "max_tokens": 8},
]


@pytest.mark.slow
@pytest.mark.parametrize("way", [("--embedded",), ()], ids=["embedded", "ray"])
def test_ingress_and_scheduler_send_one_trace_before_they_end(
    way: tuple[str, ...],
    tiny_model_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with Collector() as collector:
        with Server(
            tmp_path,
            ("plato", "serve", *way),
            model=tiny_model_folder,
            served_model_name="tiny",
            kv_budget_mb=16,
            otlp_endpoint=collector.url,
        ) as server:
            response = httpx.post(
                f"{server.url}/v1/chat/completions",
                json={
                    "messages": [{"role": "user", "content": "Shall I buy a used bicycle?"}],
                    "plato": {"mode": "plato", "plan": PLAN},
                },
                headers={"traceparent": f"00-{TRACE}-{SPAN}-01"},
                timeout=60,
            ).raise_for_status()
            assert collector.spans == []
            # Before, it is still starting, and ends at once.
            wait_until(lambda: "/v1\n" in server.log, 30, "the server says that it is ready")
            assert server.stop() == 0
        spans = {span.name: span for span in collector.run(response.headers["x-request-id"])}
    root, run = spans["POST /v1/chat/completions"], spans["invoke_workflow plato"]
    assert (root.trace, root.parent) == (TRACE, SPAN)
    assert response.headers["traceresponse"].split("-")[2] == root.id
    assert run.within(root)
    assert spans["plan"].within(run)
    assert spans["node 1"].within(run)
    assert spans["node 2"].begin >= spans["node 1"].end
    assert (root.resource == run.resource) == bool(way)

"""Files of a run."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from plato.api.runs.object import RunObject
from plato.exports import Recording, to_chrome_trace, to_markdown, to_page
from plato.exports.page import FOLDER
from plato.runs import NodeReport, NodeState, RunState
from tests.runs.examples import (
    PLAN,
    REPORT,
    chosen,
    plan_finished,
    planned,
    queued,
    request,
    run_finished,
    started,
    with_ids,
)

NODE = NodeReport(
    1,
    "Salt | sea",
    (),
    NodeState.DONE,
    planned_s=0.1,
    started_s=0.2,
    first_token_s=0.9,
    finished_s=2.0,
    tokens=7,
    prompt_tokens=40,
    cached_tokens=10,
)
PLANNED = replace(PLAN, started_s=0.0, finished_s=0.2)


@pytest.fixture
def recording() -> Recording:
    """A run of one part, which a decoder has taken at the second attempt."""
    report = replace(REPORT, nodes=(NODE,), plan=PLANNED, finish_reason="stop")
    events = with_ids(
        [
            planned(1, "Salt | sea"),
            chosen(),
            plan_finished(),
            queued(1),
            started(1, at_s=0.3),
            queued(1, attempt=1, at_s=0.4),
            started(1, attempt=1, at_s=0.5),
            replace(run_finished(), report=report, text="It </script> is."),
        ]
    )
    state = RunState(request(), events)
    return Recording(RunObject.of(state, "small"), list(events[:-1]))


def test_json_has_the_run_and_its_events(recording: Recording) -> None:
    written = json.loads(json.dumps(recording.as_json()))
    types = [event["type"] for event in written["events"]]
    assert types[:2] == ["node_planned", "mode_chosen"]
    assert types[-1] == "run_finished"
    assert written["events"][-1]["run"] == written["run"]
    assert written["run"]["answer"] == "It </script> is."


def test_markdown_has_the_answer_and_a_table(recording: Recording) -> None:
    written = to_markdown(recording)
    assert written.startswith("# Why?\n\nIt </script> is.\n\n---\n\nsmall, plato, 3.0 s")
    assert "| 1 | Salt \\| sea |  | 0.2 s | 2.0 s | 7 | 25% cached |" in written


def test_a_trace_has_a_thread_for_each_part(recording: Recording) -> None:
    events = to_chrome_trace(recording)["traceEvents"]
    spans = {
        (span["tid"], span["name"]): (span["ts"] / 1e6, span["dur"] / 1e6)
        for span in events
        if span["ph"] == "X"
    }
    assert spans == {
        (0, "plan"): pytest.approx((0.0, 0.2)),
        (1, "waits"): pytest.approx((0.1, 0.4)),
        (1, "prefill"): pytest.approx((0.5, 0.4)),
        (1, "decode"): pytest.approx((0.9, 1.1)),
    }
    assert json.dumps(events)


def test_a_page_holds_everything_that_it_needs(recording: Recording) -> None:
    page = to_page([recording])
    modules = re.findall(r'"\./web/([^"]+)"', (FOLDER / "index.html").read_text("utf-8"))
    assert page.count("data:text/javascript;base64,") == len(modules)
    assert "web/" not in page.split('id="recordings">')[0]
    (data,) = re.findall(r'id="recordings">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data) == [json.loads(json.dumps(recording.as_json()))]
    assert "default-src 'none'" in page

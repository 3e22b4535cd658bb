"""What operators see of the real application, and that it is true."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from deployments.metrics import ROLES
from plato.metrics import METRICS, Kind, Metric, metrics_of, table
from tests.end_to_end.exposition import Scrape
from tests.end_to_end.server import EXPORT_S, PREFIX, Server

pytestmark = pytest.mark.slow

SAMPLED_S = 4.0
"""What is sampled once a second, and the way to Ray's agent, on a machine that is busy."""
TOLD_S = 1.5
"""By then every scheduler has been told what a decoder holds."""
CROWD = 12
APART_S = 0.3
TITLES = ("The sea", "The sand", "The wind", "The town")
IMPORTS = f"{PREFIX}{table.KV_IMPORT_SECONDS.name}_count"
WIDE = [{"title": title, "max_tokens": 24} for title in TITLES]


def ask(server: Server, question: str, *, max_tokens: int = 60, **plato: Any) -> dict[str, Any]:
    """One answer, or the error."""
    body = {
        "model": "small",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "plato": plato,
    }
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
    told: dict[str, Any] = answer.json()
    return told


def ask_in_a_crowd(server: Server, question: str) -> list[dict[str, Any]]:
    """Many ask the same long question, which one decoder holds: its KV is worth moving."""
    long = question + " It was warm, and nobody was in a hurry." * 70
    alone = [ask(server, long, max_tokens=1, mode="sequential")]
    time.sleep(TOLD_S)
    with ThreadPoolExecutor(CROWD) as threads:
        crowd = []
        for _ in range(CROWD):
            crowd.append(threads.submit(ask, server, long, max_tokens=100, mode="sequential"))
            # The first that goes elsewhere gets the prefix before the next one would compute it.
            time.sleep(APART_S)
        return alone + [answer.result() for answer in crowd]


def comes(true: Callable[[], bool]) -> bool:
    """Whether something shows in the metrics by the time that everything before it does."""
    deadline = time.monotonic() + EXPORT_S + SAMPLED_S
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


@pytest.fixture(scope="module")
def answers(server: Server) -> dict[str, list[dict[str, Any]]]:
    """Answers in every mode, several at once, and errors."""
    alone = ask_in_a_crowd(server, "Tell me about a day by the sea.")
    if not comes(lambda: bool(Scrape(server.metrics()).series(IMPORTS))):
        # On a busy machine a transfer can pass its deadline, and then it is not timed.
        alone += ask_in_a_crowd(server, "Tell me about a day in the hills.")
    done = [
        ask(server, "What is rain?", mode="plato"),
        ask(server, "What is wind?", mode="plato", plan=WIDE),
    ]
    return {
        "plato": done,
        "sequential": alone,
        "skeleton": [ask(server, "What is hail?", mode="skeleton")],
        "errors": [ask(server, "What is fog?", mode="nonsense"), ask(server, "x", max_nodes=999)],
    }


@pytest.fixture(scope="module")
def scrape(server: Server, answers: dict[str, list[dict[str, Any]]]) -> Scrape:
    """The metrics after these."""
    # Every process has a beat of its own: by then each of them has told what it knew.
    time.sleep(EXPORT_S + SAMPLED_S)
    return Scrape(server.metrics())


def _name(metric: Metric) -> str:
    return PREFIX + metric.name


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_every_metric_of_the_table_comes_out_as_declared(metric: Metric, scrape: Scrape) -> None:
    name = _name(metric)
    assert scrape.kinds[name] == metric.kind
    assert scrape.helps[name] == metric.help
    series = scrape.series(f"{name}_count" if metric.kind is Kind.HISTOGRAM else name)
    assert series
    for labels in series:
        assert set(metric.labels) <= set(labels)
        for label, values in metric.labels.items():
            assert labels[label] in values


def test_every_process_tells_what_its_role_has(scrape: Scrape) -> None:
    for deployment, role in ROLES.items():
        for metric in metrics_of(role):
            if metric.kind is not Kind.HISTOGRAM:
                found = {labels["deployment"] for labels in scrape.series(_name(metric))}
                assert deployment in found, metric.name


def test_nothing_is_exported_that_the_table_has_not(scrape: Scrape) -> None:
    ours = {name for name in scrape.kinds if name.startswith(f"{PREFIX}plato_")}
    assert ours == {_name(metric) for metric in METRICS.values()}


def test_counters_begin_at_zero_for_every_value_of_their_labels(scrape: Scrape) -> None:
    # Without that, the first error of a kind would be no increase.
    found = {labels["code"] for labels in scrape.series(_name(table.RUN_ERRORS_TOTAL))}
    assert found == set(table.RUN_ERRORS)
    name = _name(table.RUN_ERRORS_TOTAL)
    # Other tests on this server ask a question that is too long.
    assert {code for code in found if scrape.total(name, code=code)} <= {"context_length_exceeded"}


def test_the_numbers_are_those_of_the_answers(
    scrape: Scrape, answers: dict[str, list[dict[str, Any]]]
) -> None:
    for mode in ("plato", "sequential", "skeleton"):
        asked = sum(
            answer["plato"]["mode"] == mode
            for group in answers.values()
            for answer in group
            if "plato" in answer
        )
        assert scrape.total(_name(table.RUNS), mode=mode, outcome="done") >= asked > 0
    told = [answer["error"]["code"] for answer in answers["errors"]]
    for code in told:
        assert scrape.total(_name(table.REQUEST_ERRORS_TOTAL), code=code) >= told.count(code)

    done = [answer for mode in ("plato", "sequential", "skeleton") for answer in answers[mode]]
    graphs = [answer["plato"]["graph"]["nodes"] for answer in done]
    tokens = sum(node["tokens"] for nodes in graphs for node in nodes)
    assert scrape.total(_name(table.DECODED_TOKENS)) >= tokens
    for state in ("done", "cancelled"):
        # Where an answer is complete early, what is left of it is cancelled.
        ended = sum(node["state"] == state for nodes in graphs for node in nodes)
        assert scrape.total(_name(table.NODES), outcome=state) >= ended
    assert scrape.total(_name(table.ANSWER_TOKENS)) >= sum(
        answer["usage"]["completion_tokens"]
        - answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
        for answer in done
    )
    prompts = scrape.total(_name(table.PROMPT_TOKENS))
    assert prompts >= sum(node["prompt_tokens"] for nodes in graphs for node in nodes)
    cached = scrape.total(_name(table.PROMPT_TOKENS), kv="cached")
    assert prompts > cached >= sum(node["cached_tokens"] for nodes in graphs for node in nodes)
    assert scrape.total(_name(table.REUSE_ACTUAL)) <= cached
    assert scrape.total(_name(table.PLACEMENTS), kv="import") > 0
    assert scrape.total(_name(table.KV_IMPORTED)) > 0

    steps = scrape.total(_name(table.STEPS))
    assert 1 <= scrape.total(_name(table.STEP_SEQUENCES)) / steps <= 16
    assert scrape.total(_name(table.BUSY_SECONDS)) > 0
    used, capacity = (scrape.total(_name(m)) for m in (table.KV_USED, table.KV_CAPACITY))
    assert 0 < used < capacity <= 3 * (256 << 20)
    assert scrape.total(_name(table.STORE_AVAILABLE)) == len(
        scrape.series(_name(table.STORE_AVAILABLE))
    )


def test_every_log_line_about_a_run_has_its_id(
    server: Server, answers: dict[str, list[dict[str, Any]]]
) -> None:
    opened = httpx.post(
        f"{server.url}/v1/runs",
        json={
            "model": "small",
            "messages": [{"role": "user", "content": "Count to a thousand."}],
            "plato": {"mode": "sequential"},
        },
        timeout=20,
    ).json()
    httpx.delete(f"{server.url}/v1/runs/{opened['id']}", timeout=20)
    missing = "0123456789abcdef0123456789abcdef"
    httpx.get(f"{server.url}/v1/runs/{missing}", timeout=20)
    runs = {missing, opened["id"]} | {
        answer["id"].removeprefix("chatcmpl-")
        for group in answers.values()
        for answer in group
        if "id" in answer
    }

    def said() -> set[str]:
        """Runs that a line is about, after a look at all of them."""
        about = set()
        for line in server.log.splitlines():
            for run in runs:
                # Ray adds tracebacks of its own, which are no JSON.
                if run in line and "{" in line:
                    found = json.loads(line[line.index("{") : line.rindex("}") + 1])
                    assert found.get("run") == run or run in found.get("runs", ()), line
                    about.add(run)
        return about

    deadline = time.monotonic() + 10
    while said() != runs and time.monotonic() < deadline:
        time.sleep(0.2)
    assert said() == runs

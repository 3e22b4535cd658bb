"""The OpenAPI document is complete: no request gets an answer that it does not tell."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from jsonschema import Draft202012Validator
from pydantic import SecretStr
from schemathesis.checks import not_a_server_error
from schemathesis.openapi import from_url
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from plato.runtime import Runtime
from plato.settings import Settings
from tests.api.asking import QUESTION, RUNS, short
from tests.serving import serving

KEY = "0123456789abcdef"
HEADERS = {"Authorization": f"Bearer {KEY}"}
FAULTS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
    ignored_auth,
]
deterministic = settings(
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def url(tiny_model_folder: str) -> Iterator[str]:
    """A server in a thread of its own: clients of schemathesis block theirs."""
    chosen = Settings(
        model=tiny_model_folder,
        served_model_name="tiny",
        kv_budget_mb=16,
        api_keys=SecretStr(f"shop={KEY}"),
        node_max_tokens=4,
        sequential_max_tokens=4,
        run_deadline_s=20,
    )
    started: Queue[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Queue()

    async def serve() -> None:
        stop = asyncio.Event()
        async with await Runtime.open(chosen) as runtime, serving(runtime.service, chosen) as url:
            started.put((url, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="server", daemon=True)
    thread.start()
    url, loop, stop = started.get(timeout=60)
    yield url
    loop.call_soon_threadsafe(stop.set)
    thread.join(timeout=30)


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers=HEADERS, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def run_id(http: httpx.Client) -> str:
    """A run that has ended, or will before it is asked for."""
    opened: str = http.post(RUNS, json=short()).raise_for_status().json()["id"]
    http.get(f"{RUNS}/{opened}/events").raise_for_status()
    return opened


@pytest.fixture(scope="module")
def api(url: str) -> schemathesis.BaseSchema:
    return from_url(f"{url}/openapi.json")


def test_the_document_is_valid_and_names_every_error(api: Any) -> None:
    api.validate()
    for schema in api.raw_schema["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for path, methods in api.raw_schema["paths"].items():
        for operation in methods.values():
            assert operation["summary"]
            refusals = {"401", "403"} & operation["responses"].keys()
            assert refusals == ({"401", "403"} if path.startswith("/v1/") else set())
            assert "500" in operation["responses"]


@pytest.mark.parametrize(
    ("path", "question"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/v1/responses", {"input": "Hi"}),
    ],
)
def test_tool_calls_are_documented(api: Any, path: str, question: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": {"name": "end"}}]
    body = {**question, "tools": tools, "tool_choice": "required"}
    case = api[path]["POST"].Case(body=body, media_type="application/json")
    response = case.call_and_validate(headers=HEADERS, checks=FAULTS, timeout=60)
    assert response.status_code == httpx.codes.OK
    assert "call_" in response.text


def check(case: schemathesis.Case, run_id: str) -> None:
    """Send a request, of which every other is about a run that there is, or can be answered."""
    if "run_id" in (case.path_parameters or {}) and len(case.path_parameters["run_id"]) % 2:
        case.path_parameters["run_id"] = run_id
    if isinstance(case.body, dict) and "messages" in case.body and len(str(case.body)) % 2:
        case.body["messages"] = QUESTION
    options = case.body.get("plato") if isinstance(case.body, dict) else None
    if isinstance(options, dict) and "deadline_s" in options:
        del options["deadline_s"]  # Whether there is an answer in time is chance.
    case.call_and_validate(headers=HEADERS, checks=FAULTS, timeout=60)


def check_all(api: schemathesis.BaseSchema, run_id: str, examples: int) -> None:
    """Send so many requests of every operation."""
    # Not by schemathesis's own parametrisation, which pytest 9.2 breaks.
    for found in api.get_all_operations():
        strategy: SearchStrategy[schemathesis.Case] = found.ok().as_strategy()

        @settings(deterministic, max_examples=examples)
        @given(case=strategy)
        def send(case: schemathesis.Case) -> None:
            check(case, run_id)

        send()


@pytest.mark.slow
def test_no_request_gets_an_answer_that_is_not_documented(
    api: schemathesis.BaseSchema, run_id: str
) -> None:
    check_all(api, run_id, examples=25)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_also_not_one_of_many(api: schemathesis.BaseSchema, run_id: str) -> None:
    check_all(api, run_id, examples=1000)

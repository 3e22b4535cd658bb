"""Settings hold the defaults and bounds of runs, for HTTP, the library and the command alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from plato.client import LocalClient
from plato.engine import SamplingParams
from plato.errors import PlatoError
from plato.runs import RunRequest
from plato.runtime import Runtime
from plato.settings import Settings
from tests.serving import connect

QUESTION = "Why is the sea salty?"
PLAN = [{"title": title, "max_tokens": 3} for title in ("Salt", "Depth", "Tides")]

# One event loop for all of this file: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="module")

Ask = Callable[..., Awaitable[str]]
"""Asks a runtime with fields of a request; returns the run's id, or raises a `PlatoError`."""


async def over_http(runtime: Runtime, **options: Any) -> str:
    body = {"messages": [{"role": "user", "content": QUESTION}], "model": "tiny", **options}
    async with connect(runtime.service, runtime.settings) as http:
        response = await http.post("/v1/chat/completions", json=body)
    answered = response.json()
    if response.status_code != httpx.codes.OK:
        error = answered["error"]
        raise PlatoError(error["message"], param=error["param"], code=error["code"])
    return str(answered["plato"]["run"])


async def as_library(runtime: Runtime, **options: Any) -> str:
    return (await runtime.ask(QUESTION, **options)).report.run_id


async def by_command(runtime: Runtime, **options: Any) -> str:
    return (await LocalClient(runtime).ask(QUESTION, **options)).info.run


every_way = pytest.mark.parametrize("ask", [over_http, as_library, by_command])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runtime(tiny_model_folder: str) -> AsyncIterator[Runtime]:
    settings = Settings(
        model=tiny_model_folder,
        served_model_name="tiny",
        kv_budget_mb=16,
        lease_ttl_s=10,
        max_nodes=4,
        temperature=0.5,
        repetition_penalty=1.3,
        run_deadline_s=50,
        sequential_max_tokens=3,
        node_max_tokens=3,
    )
    async with await Runtime.open(settings) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def measuring(runtime: Runtime) -> AsyncIterator[Runtime]:
    """The same engines with equal work allowed."""
    settings = runtime.settings.model_copy(update={"equal_work": True})
    opened = Runtime(settings, runtime.tools, runtime.engines)
    yield opened
    await opened.scheduler.close()


async def request_of(runtime: Runtime, run_id: str) -> RunRequest:
    """What the scheduler was asked for."""
    return (await runtime.scheduler.runs.snapshot("", run_id)).request


@every_way
async def test_what_a_request_leaves_open_is_as_the_settings_say(
    runtime: Runtime, ask: Ask
) -> None:
    run_id = await ask(runtime, plato={"mode": "sequential"})
    request = await request_of(runtime, run_id)
    assert (request.max_nodes, request.deadline_s) == (4, 50.0)
    assert request.sampling == SamplingParams(temperature=0.5, repetition_penalty=1.3)
    snapshot = await runtime.scheduler.runs.snapshot("", run_id)
    ended = snapshot.events[-1]
    assert ended.report.answer_tokens == 3


@every_way
async def test_within_the_bounds_a_request_has_its_way(runtime: Runtime, ask: Ask) -> None:
    plato = {"mode": "sequential", "max_nodes": 3, "deadline_s": 20}
    run_id = await ask(runtime, repetition_penalty=1.0, top_k=5, plato=plato)
    request = await request_of(runtime, run_id)
    assert (request.max_nodes, request.deadline_s) == (3, 20.0)
    assert request.sampling == SamplingParams(temperature=0.5, top_k=5)


@every_way
@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        (
            {"plato": {"max_nodes": 5}},
            "plato.max_nodes",
            "'plato.max_nodes' is 5, and this deployment allows 4; ask for fewer parts",
        ),
        (
            {"plato": {"deadline_s": 51}},
            "plato.deadline_s",
            "'plato.deadline_s' is 51, and this deployment allows 50; ask for less, or leave it "
            "out",
        ),
        (
            {"repetition_penalty": 2.5},
            "repetition_penalty",
            "'repetition_penalty' should be less than or equal to 2",
        ),
        (
            {"plato": {"plan": [*PLAN, *PLAN]}},
            "plato.plan",
            "the plan has more than 4 parts; merge some, or raise `max_nodes`",
        ),
    ],
)
async def test_beyond_the_bounds_it_is_refused_in_the_same_words(
    runtime: Runtime, ask: Ask, options: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(PlatoError) as refused:
        await ask(runtime, **options)
    assert (refused.value.message, refused.value.param) == (message, param)


@every_way
@pytest.mark.parametrize("option", ["decode_plan", "exact_lengths"])
async def test_equal_work_is_for_deployments_that_allow_it(
    runtime: Runtime, measuring: Runtime, ask: Ask, option: str
) -> None:
    plato = {"mode": "plato", "plan": PLAN, option: True}
    with pytest.raises(PlatoError) as refused:
        await ask(runtime, plato=plato)
    assert refused.value.message == (
        f"'plato.{option}' is for measurements, and this deployment does not accept it; leave it "
        "out, or start the server with equal_work=true"
    )
    assert refused.value.param == f"plato.{option}"
    request = await request_of(measuring, await ask(measuring, plato=plato))
    assert getattr(request, option)

"""Runs over HTTP, on a real runtime: opened, fetched, followed, resumed and cancelled."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from plato.context import MemoryContextStore
from plato.runtime import Runtime
from tests.api.asking import CHAT, QUESTION, RUNS, chunks_of, long, server_sent, short, text_of
from tests.serving import connect

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")


def answer_of(sent: list[dict[str, str]], text: bytes = b"") -> bytes:
    """What a client has that puts the text of every event at its place."""
    for event in sent:
        data = json.loads(event["data"])
        text = text[: data["text_offset"]] + data["text"].encode()
    return text


async def open_run(http: httpx.AsyncClient, fields: dict[str, Any]) -> str:
    opened = await http.post(RUNS, json=fields)
    assert opened.status_code == httpx.codes.ACCEPTED
    run = opened.json()
    assert (run["object"], run["status"], run["answer"]) == ("run", "running", "")
    location = f"{RUNS}/{run['id']}"
    assert opened.headers["location"] == location
    return location


async def test_a_run_is_opened_followed_and_fetched(http: httpx.AsyncClient) -> None:
    location = await open_run(http, short())
    sent = server_sent(await http.get(f"{location}/events"))
    assert sent[-1]["event"] == "run_finished"
    assert all(json.loads(event["data"])["type"] == event["event"] for event in sent)
    run = (await http.get(location)).json()
    assert (run["status"], run["usage"]["completion_tokens"]) == ("done", 12)
    assert run["answer"].encode() == answer_of(sent)
    completion = (await http.post(CHAT, json=short())).json()
    assert run["answer"] == completion["choices"][0]["message"]["content"]


async def test_every_way_to_an_answer_says_how_it_was_sampled(http: httpx.AsyncClient) -> None:
    used = {
        "temperature": 0.7,
        "top_p": 1.0,
        "top_k": 9,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.0,
    }
    asked = short(temperature=0.7, top_k=9, presence_penalty=0.5)
    completion = (await http.post(CHAT, json=asked)).json()
    sampling = completion["plato"]["sampling"]
    assert sampling == {**used, "seed": sampling["seed"]}
    # What is said is enough to ask for the same text again.
    again = {**asked, **sampling}
    streamed = chunks_of(await http.post(CHAT, json={**again, "stream": True}))
    assert text_of(streamed) == completion["choices"][0]["message"]["content"]
    assert streamed[-1]["plato"]["sampling"] == sampling
    location = await open_run(http, again)
    sent = server_sent(await http.get(f"{location}/events"))
    assert json.loads(sent[-1]["data"])["run"]["plato"]["sampling"] == sampling
    run = (await http.get(location)).json()
    assert run["answer"] == text_of(streamed)
    assert run["plato"]["sampling"] == sampling


@pytest.mark.parametrize("by", ["last-event-id", "after"])
async def test_a_run_is_resumed_behind_any_event(http: httpx.AsyncClient, by: str) -> None:
    location = await open_run(http, short())
    whole = server_sent(await http.get(f"{location}/events"))
    for index, event in enumerate(whole[:-1]):
        where = {"headers" if by == "last-event-id" else "params": {by: event["id"]}}
        rest = server_sent(await http.get(f"{location}/events", **where))  # type: ignore[arg-type]
        assert [sent["id"] for sent in rest] == [sent["id"] for sent in whole[index + 1 :]]
        assert answer_of(rest, answer_of(whole[: index + 1])) == answer_of(whole)


@pytest.mark.parametrize(
    "wrong", ["x", "1", "1-", "-1-2", "1-2-3", "9" * 5000 + "-1", "1-" + "9" * 20], ids=len
)
async def test_a_wrong_event_id_is_refused(http: httpx.AsyncClient, wrong: str) -> None:
    location = await open_run(http, short())
    refused = await http.get(f"{location}/events", headers={"Last-Event-ID": wrong})
    assert refused.status_code == httpx.codes.BAD_REQUEST
    message = refused.json()["error"]["message"]
    assert "is not an event id; one looks like 1-42" in message
    assert len(message) < 150


@pytest.mark.parametrize("mode", ["sequential", "plato", "auto"])
async def test_a_run_whose_question_does_not_fit_is_refused(
    http: httpx.AsyncClient, mode: str
) -> None:
    wordy = [{"role": "user", "content": "word " * 3000}]
    body = {"model": "tiny", "messages": wordy, "plato": {"mode": mode}}
    refused = await http.post(RUNS, json=body)
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert refused.json()["error"]["code"] == "context_length_exceeded"


async def test_a_run_is_cancelled_and_stays_so(http: httpx.AsyncClient, runtime: Runtime) -> None:
    location = await open_run(http, long())
    for _ in range(2):
        run = (await http.delete(location)).json()
        assert (run["status"], run["error"]["code"]) == ("cancelled", "cancelled")
    assert run["id"] not in runtime.scheduler.runs
    assert server_sent(await http.get(f"{location}/events"))[-1]["event"] == "run_failed"


async def test_a_head_of_events_does_not_wait_for_the_end_of_the_run(
    http: httpx.AsyncClient,
) -> None:
    location = await open_run(http, long())
    for path in (f"{location}/events", f"/v1/responses/{location[-32:]}?stream=true"):
        head = await http.head(path)
        assert head.headers["content-type"].startswith("text/event-stream")
        assert head.content == b""
    assert (await http.get(location)).json()["status"] == "running"
    await http.delete(location)


async def test_parts_are_open_until_the_run_ends(http: httpx.AsyncClient) -> None:
    def states(run: dict[str, Any]) -> list[str]:
        return [node["state"] for node in run["plato"]["graph"]["nodes"]]

    plan = [
        {"title": "Salt", "max_tokens": 1000},
        {"title": "Depth", "max_tokens": 5, "dependencies": [1]},
    ]
    body = {"model": "tiny", "messages": QUESTION, "plato": {"plan": plan, "exact_lengths": True}}
    location = await open_run(http, body)
    async with asyncio.timeout(30):
        while states(run := (await http.get(location)).json()) != ["running", "planned"]:
            assert set(states(run)) <= {"planned", "queued"}
    assert states((await http.delete(location)).json()) == ["cancelled", "cancelled"]
    kinds = [event["event"] for event in server_sent(await http.get(f"{location}/events"))]
    assert kinds.index("node_queued") < kinds.index("node_started")
    assert kinds[-3:] == ["node_cancelled", "node_cancelled", "run_failed"]


async def test_a_run_that_has_ended_is_not_cancelled(http: httpx.AsyncClient) -> None:
    location = await open_run(http, short())
    await http.get(f"{location}/events")
    assert (await http.delete(location)).json()["status"] == "done"


async def test_a_run_says_when_and_what_was_asked(http: httpx.AsyncClient) -> None:
    before = int(time.time())
    location = await open_run(http, short(metadata={"ticket": "7"}, stop=["END"]))
    await http.get(f"{location}/events")
    run = (await http.get(location)).json()
    assert before <= run["created"] <= time.time()
    assert (run["question"], run["metadata"]) == ("Why is the sea salty?", {"ticket": "7"})
    assert (run["options"]["mode"], run["options"]["stop"]) == ("plato", ["END"])
    assert "\n\n".join(text.strip() for text in run["texts"].values()) == run["answer"]


async def test_a_completion_is_a_run_too(http: httpx.AsyncClient) -> None:
    completion = (await http.post(CHAT, json=short())).json()
    run = (await http.get(f"{RUNS}/{completion['id']}")).json()
    assert run["answer"] == completion["choices"][0]["message"]["content"]


@pytest.mark.parametrize("path", ["", "/events"])
async def test_only_its_own_key_finds_a_run(http: httpx.AsyncClient, path: str) -> None:
    location = await open_run(http, short())
    refused = await http.get(location + path, headers={"Authorization": "Bearer another"})
    assert refused.status_code == httpx.codes.NOT_FOUND
    assert refused.json()["error"]["code"] == "run_not_found"
    refused = await http.delete(location, headers={"Authorization": "Bearer another"})
    assert refused.status_code == httpx.codes.NOT_FOUND


async def test_a_run_of_another_server_on_the_same_store_is_cancelled_there(
    runtime: Runtime,
) -> None:
    store = MemoryContextStore()
    one, two = (Runtime(runtime.settings, runtime.tools, runtime.engines, store) for _ in range(2))
    try:
        async with (
            connect(one.service, one.settings) as here,
            connect(two.service, two.settings) as there,
        ):
            run = (await here.post(RUNS, json=long())).json()["id"]
            refused = await there.delete(f"{RUNS}/{run}")
            assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert "cancel it there" in refused.json()["error"]["message"]
            assert (await here.delete(f"{RUNS}/{run}")).json()["status"] == "cancelled"
            assert (await there.delete(f"{RUNS}/{run}")).json()["status"] == "cancelled"
    finally:
        await one.scheduler.close()
        await two.scheduler.close()


@pytest.mark.hostile
async def test_the_end_of_a_run_is_not_sent_twice(http: httpx.AsyncClient) -> None:
    location = await open_run(http, short())
    sent = server_sent(await http.get(f"{location}/events"))
    last, before = sent[-1]["id"], sent[-2]["id"]
    # By the standard 204 tells a client not to reconnect.
    ended = await http.get(f"{location}/events", headers={"Last-Event-ID": last})
    assert (ended.status_code, ended.text) == (httpx.codes.NO_CONTENT, "")
    rest = server_sent(await http.get(f"{location}/events", params={"after": before}))
    assert [event["id"] for event in rest] == [last]


@pytest.mark.hostile
async def test_the_parts_of_a_run_that_goes_on_are_not_cancelled(http: httpx.AsyncClient) -> None:
    plan = [
        {"title": "One", "max_tokens": 1000},
        {"title": "Two", "max_tokens": 9, "dependencies": [1]},
    ]
    location = await open_run(http, short(plato={"plan": plan, "exact_lengths": True}))
    states: list[str] = []
    async with asyncio.timeout(20):
        while states != ["running", "planned"]:
            await asyncio.sleep(0.01)
            run = (await http.get(location)).json()
            states = [node["state"] for node in run["plato"]["graph"]["nodes"]]
            assert run["status"] == "running"
            assert "cancelled" not in states
    await http.delete(location)


@pytest.mark.hostile
async def test_the_scheme_of_a_key_has_no_case(http: httpx.AsyncClient) -> None:
    headers = {"Authorization": "bearer one"}
    location = (await http.post(RUNS, json=short(), headers=headers)).headers["location"]
    for scheme, status in (("Bearer", 200), ("BEARER", 200), ("Basic", 404)):
        found = await http.get(location, headers={"Authorization": f"{scheme} one"})
        assert found.status_code == status


LISTER = {"Authorization": "Bearer lister"}


async def listed(http: httpx.AsyncClient, **query: str) -> dict[str, Any]:
    found = await http.get(RUNS, params=query, headers=LISTER)
    assert found.status_code == httpx.codes.OK
    runs: dict[str, Any] = found.json()
    return runs


async def test_runs_are_listed_newest_first_page_by_page(http: httpx.AsyncClient) -> None:
    http.headers.update(LISTER)
    locations = []
    for number in range(3):
        fields = short(metadata={"number": str(number)})
        locations.append(await open_run(http, fields))
        await http.get(f"{locations[-1]}/events")
    completion = (await http.post(CHAT, json=short())).json()
    running = await open_run(http, long())
    runs = await listed(http)
    newest = [running, f"{RUNS}/{completion['plato']['run']}", *reversed(locations)]
    assert [f"{RUNS}/{run['id']}" for run in runs["data"]] == newest
    assert (runs["object"], runs["has_more"], runs["next_before"]) == ("list", False, None)
    shown = runs["data"][2]
    assert (shown["question"], shown["metadata"]) == ("Why is the sea salty?", {"number": "2"})
    assert (shown["mode"], shown["created"]) == ("plato", pytest.approx(time.time(), abs=60))
    first = await listed(http, limit="2", status="done")
    assert [f"{RUNS}/{run['id']}" for run in first["data"]] == newest[1:3]
    assert first["has_more"]
    for before in (first["next_before"], first["data"][-1]["id"]):
        rest = await listed(http, before=before)
        assert [f"{RUNS}/{run['id']}" for run in rest["data"]] == newest[3:]
    assert (await listed(http, before=completion["id"]))["data"] == runs["data"][2:]
    assert [run["status"] for run in (await listed(http, status="running"))["data"]] == ["running"]
    await http.delete(running)
    assert len((await listed(http, status="cancelled"))["data"]) == 1
    assert (await listed(http, before="none"))["data"] == []


async def test_a_page_without_runs_says_that_the_list_continues(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    http.headers["Authorization"] = "Bearer reader"
    locations = [await open_run(http, short()) for _ in range(2)]
    for location in locations:
        await http.get(f"{location}/events")
    monkeypatch.setattr("plato.scheduling.ownership.stored_runs.MAX_LISTED", 1)
    page = (await http.get(RUNS, params={"status": "failed"})).json()
    assert (page["data"], page["has_more"]) == ([], True)
    assert page["next_before"] == locations[0].rpartition("/")[2]
    query = {"status": "failed", "before": page["next_before"]}
    end = (await http.get(RUNS, params=query)).json()
    assert (end["data"], end["has_more"], end["next_before"]) == ([], False, None)


@pytest.mark.parametrize("query", [{"limit": "0"}, {"limit": "x"}, {"status": "x"}, {"page": "2"}])
async def test_a_list_of_something_else_is_refused(
    http: httpx.AsyncClient, query: dict[str, str]
) -> None:
    refused = await http.get(RUNS, params=query, headers=LISTER)
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert refused.json()["error"]["param"] == next(iter(query))


@pytest.mark.hostile
async def test_runs_are_listed_for_their_own_key_alone(http: httpx.AsyncClient) -> None:
    await open_run(http, short())
    assert (await http.get(RUNS)).status_code == httpx.codes.UNAUTHORIZED
    other = await http.get(RUNS, headers={"Authorization": "Bearer nobody's"})
    assert other.json()["data"] == []

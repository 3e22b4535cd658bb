"""Runs over HTTP: opened, fetched, followed, resumed and cancelled."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.end_to_end.server import Server
from tests.end_to_end.waiting import wait_until

PLAN = [
    {"title": "The first part", "max_tokens": 20},
    {"title": "The second part", "max_tokens": 20, "dependencies": [1]},
]


def body(**plato: Any) -> dict[str, Any]:
    return {
        "model": "small",
        "messages": [{"role": "user", "content": "What is a harbour for?"}],
        "plato": {"mode": "plato", "plan": PLAN, "exact_lengths": True, **plato},
    }


def events(http: httpx.Client, run_id: str, after: str | None = None, most: int = 10_000) -> Any:
    """(id, type, data) of a run's events."""
    headers = {"Last-Event-ID": after} if after else {}
    found = []
    with http.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as response:
        assert response.status_code == httpx.codes.OK
        assert response.headers["content-type"].startswith("text/event-stream")
        event: dict[str, str] = {}
        for line in response.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif event:
                found.append((event["id"], event["event"], json.loads(event["data"])))
                event = {}
                if len(found) >= most:
                    break
    return found


def text_of(pieces: Any, known: str = "") -> str:
    text = known.encode()
    for _, _, data in pieces:
        text = text[: data["text_offset"]] + data["text"].encode()
    return text.decode()


def test_a_run_goes_on_by_itself_and_can_be_fetched(http: httpx.Client) -> None:
    opened = http.post("/v1/runs", json=body())
    assert opened.status_code == httpx.codes.ACCEPTED
    run = opened.json()
    assert (run["object"], run["status"], run["answer"]) == ("run", "running", "")
    where = opened.headers["location"]
    assert where == f"/v1/runs/{run['id']}"
    wait_until(lambda: http.get(where).json()["status"] == "done", 30, "the run is done")
    done = http.get(where).json()
    direct = http.post("/v1/chat/completions", json=body()).json()
    assert done["answer"] == direct["choices"][0]["message"]["content"]
    assert done["finish_reason"] == direct["choices"][0]["finish_reason"]
    assert done["usage"]["completion_tokens"] == direct["usage"]["completion_tokens"]
    assert [node["tokens"] for node in done["plato"]["graph"]["nodes"]] == [20, 20]


def test_its_events_can_be_followed_and_resumed_anywhere(http: httpx.Client) -> None:
    run = http.post("/v1/runs", json=body()).json()["id"]
    first = events(http, run, most=4)
    rest = events(http, run, after=first[-1][0])
    assert rest[-1][1] == "run_finished"
    answer = http.get(f"/v1/runs/{run}").json()["answer"]
    assert text_of(rest, text_of(first)) == answer
    whole = events(http, run)
    assert [event[0] for event in whole] == [event[0] for event in [*first, *rest]]
    assert text_of(whole) == answer == whole[-1][2]["run"]["answer"]


def test_an_answer_of_chat_completions_can_be_fetched_as_a_run(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", json=body()).json()
    run = http.get(f"/v1/runs/{answer['id']}").json()
    assert run["answer"] == answer["choices"][0]["message"]["content"]
    assert run["plato"]["run"] == answer["plato"]["run"]


def test_cancelling_a_run_ends_it_in_the_decoder_too(http: httpx.Client, api: Server) -> None:
    long = [{"title": f"Part {letter}", "max_tokens": 400} for letter in "AB"]
    run = http.post("/v1/runs", json=body(plan=long)).json()["id"]
    wait_until(lambda: api.live() == 2, 20, "the parts are decoded", every_s=0.2)
    cancelled = http.delete(f"/v1/runs/{run}")
    assert cancelled.status_code == httpx.codes.OK
    assert cancelled.json()["status"] == "cancelled"
    assert cancelled.json()["error"]["code"] == "cancelled"
    wait_until(lambda: api.live() == 0, 4, "nothing is decoded", every_s=0.2)
    assert events(http, run)[-1][1] == "run_failed"
    # Again changes nothing.
    assert http.delete(f"/v1/runs/{run}").json()["status"] == "cancelled"


def test_a_run_is_nobody_elses(http: httpx.Client, api: Server) -> None:
    run = http.post("/v1/runs", json=body()).json()["id"]
    other = {"Authorization": "Bearer another-key"}
    for ask in (
        lambda: httpx.get(f"{api.url}/v1/runs/{run}", headers=other),
        lambda: httpx.get(f"{api.url}/v1/runs/{run}/events", headers=other),
        lambda: httpx.delete(f"{api.url}/v1/runs/{run}", headers=other),
        lambda: http.get("/v1/runs/no-such-run"),
    ):
        refused = ask()
        assert refused.status_code == httpx.codes.NOT_FOUND
        assert refused.json()["error"]["code"] == "run_not_found"


@pytest.mark.parametrize("wrong", ["x", "1", "1-", "-1-2", "1-2-3"])
def test_a_wrong_id_of_an_event_is_refused(http: httpx.Client, wrong: str) -> None:
    run = http.post("/v1/runs", json=body()).json()["id"]
    refused = http.get(f"/v1/runs/{run}/events", headers={"Last-Event-ID": wrong})
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert "1-42" in refused.json()["error"]["message"]


def test_a_run_takes_no_stream(http: httpx.Client) -> None:
    refused = http.post("/v1/runs", json=body() | {"stream": True})
    assert refused.status_code == httpx.codes.BAD_REQUEST
    assert "/events" in refused.json()["error"]["message"]

"""What clients other than a chat ask for: JSON, texts to continue, answers in the background."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema
from openai import OpenAI

from tests.end_to_end.waiting import wait_until

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "big": {"type": "boolean"}},
    "required": ["name", "big"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "harbour", "schema": SCHEMA}}
QUESTION: Any = [{"role": "user", "content": "Name a harbour, and say whether it is big."}]


def test_an_answer_is_json_under_a_schema(client: OpenAI) -> None:
    answer: Any = client.chat.completions.create(
        model="small", messages=QUESTION, response_format=FORMAT
    )
    jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.plato["mode"] == "sequential"
    assert "response_format" in answer.plato["reason"]


def test_a_text_is_continued(client: OpenAI) -> None:
    completion = client.completions.create(
        model="small", prompt="The harbour of Rotterdam is", max_tokens=8, temperature=0
    )
    assert completion.choices[0].text
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 8


def test_a_response_goes_on_in_the_background_and_is_listed(
    client: OpenAI, http: httpx.Client
) -> None:
    http.headers["Authorization"] = f"Bearer {client.api_key}"
    options = {"plato": {"mode": "plato"}}
    opened = client.responses.create(
        model="small",
        input="What is a harbour for?",
        background=True,
        metadata={"ticket": "7"},
        extra_body=options,
    )
    wait_until(
        lambda: client.responses.retrieve(opened.id).status in ("completed", "incomplete"),
        60,
        "the response is complete",
    )
    whole = client.responses.retrieve(opened.id)
    events = list(client.responses.retrieve(opened.id, stream=True, starting_after=13))
    assert all(event.sequence_number > 13 for event in events)
    rest = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert rest == whole.output_text[10:]
    run_id = opened.id.removeprefix("resp_")
    wait_until(
        lambda: (
            run_id
            in [run["id"] for run in http.get("/v1/runs", params={"status": "done"}).json()["data"]]
        ),
        30,
        "the run is listed",
    )
    (listed,) = [r for r in http.get("/v1/runs").json()["data"] if r["id"] == run_id]
    assert (listed["question"], listed["metadata"]) == ("What is a harbour for?", {"ticket": "7"})


def test_every_response_has_the_id_of_its_run(http: httpx.Client) -> None:
    body = {"model": "small:sequential", "messages": QUESTION, "max_tokens": 4}
    answered = http.post("/v1/chat/completions/", json=body)
    assert answered.headers.get_list("x-request-id") == [answered.json()["plato"]["run"]]
    assert http.get("/v1/info").json()["model"] == "small"
    assert "/v1/responses" in http.get("/v1/nothing").json()["error"]["message"]

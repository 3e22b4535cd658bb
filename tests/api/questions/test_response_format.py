"""Answers in JSON, on a real runtime: whatever the model would say, the grammar holds."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema
import pytest

from plato.api.questions.requests import parse_request
from plato.api.questions.response_format import grammar_of
from plato.errors import InvalidRequestError
from plato.scheduling.plan_phase import STRUCTURED
from tests.api.asking import CHAT, QUESTION, RUNS, chunks_of, text_of

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")

SCHEMA = {
    "type": "object",
    "properties": {
        "salty": {"type": "boolean"},
        "grade": {"enum": [1, 2, 3]},
        "seas": {"type": "array", "items": {"enum": ["red", "dead"]}, "maxItems": 2},
    },
    "required": ["salty", "grade", "seas"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "sea", "strict": True, "schema": SCHEMA}}


def structured(response_format: Any = FORMAT, **fields: Any) -> dict[str, Any]:
    return {"messages": QUESTION, "response_format": response_format, **fields}


async def test_an_answer_under_a_schema_is_sequential_and_says_why(
    http: httpx.AsyncClient,
) -> None:
    completion = (await http.post(CHAT, json=structured())).json()
    (choice,) = completion["choices"]
    jsonschema.validate(json.loads(choice["message"]["content"]), SCHEMA)
    assert choice["finish_reason"] == "stop"
    plato = completion["plato"]
    assert (plato["mode"], plato["requested_mode"]) == ("sequential", "auto")
    assert plato["reason"] == STRUCTURED


@pytest.mark.parametrize("mode", ["plato", "skeleton"])
async def test_a_mode_in_the_name_of_the_model_yields_to_a_schema(
    http: httpx.AsyncClient, mode: str
) -> None:
    completion = (await http.post(CHAT, json=structured(model=f"tiny:{mode}"))).json()
    jsonschema.validate(json.loads(completion["choices"][0]["message"]["content"]), SCHEMA)
    plato = completion["plato"]
    assert (plato["mode"], plato["requested_mode"]) == ("sequential", mode)
    assert plato["reason"] == STRUCTURED


async def test_it_streams_and_is_the_same_with_penalties_and_chance(
    http: httpx.AsyncClient,
) -> None:
    chance = {"temperature": 1.5, "seed": 3, "repetition_penalty": 1.3, "presence_penalty": 1}
    whole = (await http.post(CHAT, json=structured(**chance))).json()
    chunks = chunks_of(await http.post(CHAT, json=structured(**chance, stream=True)))
    assert text_of(chunks) == whole["choices"][0]["message"]["content"]
    jsonschema.validate(json.loads(text_of(chunks)), SCHEMA)


async def test_a_run_has_a_format_too(http: httpx.AsyncClient) -> None:
    location = (await http.post(RUNS, json=structured())).headers["location"]
    await http.get(f"{location}/events")
    run = (await http.get(location)).json()
    jsonschema.validate(json.loads(run["answer"]), SCHEMA)


async def test_an_answer_that_is_cut_says_so(http: httpx.AsyncClient) -> None:
    (choice,) = (await http.post(CHAT, json=structured(max_tokens=2))).json()["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith("{")


async def test_any_object_is_an_answer_too(http: httpx.AsyncClient) -> None:
    asked = structured({"type": "json_object"}, max_tokens=64)
    (choice,) = (await http.post(CHAT, json=asked)).json()["choices"]
    assert choice["message"]["content"].startswith("{")
    if choice["finish_reason"] == "stop":
        assert isinstance(json.loads(choice["message"]["content"]), dict)


@pytest.mark.parametrize("path", [CHAT, RUNS])
async def test_a_schema_that_cannot_be_enforced_is_refused(
    http: httpx.AsyncClient, path: str
) -> None:
    broken = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "shape"}}}
    refused = await http.post(path, json=structured(broken))
    assert refused.status_code == httpx.codes.BAD_REQUEST
    error = refused.json()["error"]
    assert error["param"] == "response_format"
    assert "Invalid type: shape" in error["message"]


def format_of(**fields: Any) -> str | None:
    return grammar_of(parse_request(json.dumps(structured(fields))).response_format)


async def test_text_needs_no_grammar() -> None:
    assert format_of(type="text") is None
    assert grammar_of(None) is None


async def test_an_object_may_have_its_schema_beside_its_type() -> None:
    """As for llama.cpp."""
    assert format_of(type="json_object", schema=SCHEMA) == grammar_of(
        parse_request(json.dumps(structured())).response_format
    )
    assert format_of(type="json_schema") == format_of(type="json_object")


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (structured({"type": "xml"}), "response_format.type"),
        (structured({"type": "json_schema", "json_schema": {"schema": []}}), "response_format"),
        (structured(plato={"mode": "plato"}), "plato.mode"),
        (structured(plato={"mode": "skeleton"}), "plato.mode"),
        (structured(model="tiny:plato", plato={"mode": "plato"}), "plato.mode"),
        (structured(plato={"plan": [{"title": "A"}, {"title": "B"}]}), "plato.plan"),
    ],
)
async def test_what_contradicts_itself_is_refused(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(json.dumps(asked))
    assert str(caught.value.param).startswith(param)

"""Texts that the model continues, over a real runtime, as the `openai` package reads them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai.types import Completion

from plato.api.chat.completion_request import CompletionRequest
from plato.api.questions.requests import parse_body
from plato.errors import InvalidRequestError
from plato.runtime import Runtime
from plato.scheduling.plan_phase import COMPLETION
from tests.api.asking import RUNS, chunks_of

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")

PATH = "/v1/completions"
PROMPT = "The sea is salty because"


def asked(**fields: Any) -> dict[str, Any]:
    return {"prompt": PROMPT, "max_tokens": 6, **fields}


async def test_a_text_is_continued_without_a_template(
    http: httpx.AsyncClient, runtime: Runtime
) -> None:
    response = (await http.post(PATH, json=asked(plato={"prompts": True}))).json()
    completion = Completion.model_validate(response)
    (choice,) = completion.choices
    assert (completion.object, completion.model) == ("text_completion", "tiny")
    assert choice.text
    assert choice.finish_reason == "length"
    (node,) = response["plato"]["graph"]["nodes"]
    assert node["prompt"] == PROMPT
    assert (response["plato"]["mode"], response["plato"]["reason"]) == ("sequential", None)
    usage = completion.usage
    assert usage is not None
    assert usage.prompt_tokens == len(runtime.tools.tokenizer.text(PROMPT))
    assert usage.completion_tokens == 6


async def test_a_mode_in_the_name_of_the_model_yields(http: httpx.AsyncClient) -> None:
    plain = (await http.post(PATH, json=asked())).json()
    named = (await http.post(PATH, json=asked(model="tiny:plato"))).json()
    assert named["choices"] == plain["choices"]
    plato = named["plato"]
    assert (plato["mode"], plato["requested_mode"]) == ("sequential", "plato")
    assert plato["reason"] == COMPLETION
    sequential = (await http.post(PATH, json=asked(model="tiny:sequential"))).json()
    assert sequential["plato"]["reason"] is None


async def test_a_stream_brings_the_same_text(http: httpx.AsyncClient) -> None:
    whole = (await http.post(PATH, json=asked())).json()
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = chunks_of(await http.post(PATH, json=asked(**options)))
    *texts, end, usage = chunks
    assert "".join(chunk["choices"][0]["text"] for chunk in texts) == whole["choices"][0]["text"]
    assert (end["choices"][0]["finish_reason"], end["plato"]["mode"]) == ("length", "sequential")
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 6)


async def test_a_continuation_begins_and_ends_with_its_own_white_space(
    http: httpx.AsyncClient, runtime: Runtime
) -> None:
    (space,) = runtime.tools.tokenizer.text(" ")
    only_spaces = asked(logit_bias={str(space): 100})
    whole = (await http.post(PATH, json=only_spaces)).json()
    assert whole["choices"][0]["text"] == " " * 6
    chunks = chunks_of(await http.post(PATH, json={**only_spaces, "stream": True}))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == " " * 6


async def test_a_completion_is_a_run_too(http: httpx.AsyncClient) -> None:
    whole = (await http.post(PATH, json=asked(metadata={"ticket": "7"}))).json()
    run = (await http.get(f"{RUNS}/{whole['id']}")).json()
    assert run["answer"] == whole["choices"][0]["text"]
    assert (run["question"], run["metadata"]) == (PROMPT, {"ticket": "7"})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_text_that_does_not_fit_is_refused(http: httpx.AsyncClient, stream: bool) -> None:
    refused = await http.post(PATH, json=asked(prompt="word " * 3000, stream=stream))
    assert refused.status_code == httpx.codes.BAD_REQUEST
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")


async def test_hints_are_reported(http: httpx.AsyncClient) -> None:
    response = (await http.post(PATH, json=asked(verbosity="low", prompt=[PROMPT]))).json()
    assert response["plato"]["ignored"] == ["verbosity"]


async def test_an_answer_in_json_is_continued_under_a_grammar(http: httpx.AsyncClient) -> None:
    schema = {"enum": ["red", "dead"]}
    form = {"type": "json_schema", "json_schema": {"name": "sea", "schema": schema}}
    response = (await http.post(PATH, json=asked(response_format=form, max_tokens=20))).json()
    assert json.loads(response["choices"][0]["text"]) in schema["enum"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": " \n"}, "prompt"),
        ({"prompt": ["one", "two"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"echo": True}, "echo"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"logprobs": 0}, "logprobs"),
        ({"n": 2}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"plato": {"mode": "skeleton"}}, "plato.mode"),
        ({"model": "tiny:plato", "plato": {"mode": "plato"}}, "plato.mode"),
        ({"plato": {"plan": [{"title": "A"}, {"title": "B"}]}}, "plato.plan"),
    ],
)
async def test_what_cannot_be_honoured_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_body(CompletionRequest, json.dumps(asked(**fields)))
    assert caught.value.param == param


@pytest.mark.parametrize("option", ["events", "reasoning"])
async def test_events_and_plans_are_for_chat_completions(
    http: httpx.AsyncClient, option: str
) -> None:
    refused = await http.post(PATH, json=asked(stream=True, plato={option: True}))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, f"plato.{option}")


async def test_neutral_values_are_accepted() -> None:
    neutral = {"suffix": None, "echo": False, "logprobs": None, "n": 1, "best_of": 1}
    assert parse_body(CompletionRequest, json.dumps(asked(**neutral))).prompt == PROMPT

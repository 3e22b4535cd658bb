"""What a chat completion request may hold, and what is said about the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plato.api.questions.requests import parse_request
from plato.errors import InvalidRequestError

QUESTION = {"role": "user", "content": "Why?"}


def body(**fields: Any) -> str:
    return json.dumps({"model": "m", "messages": [QUESTION], **fields})


def refusal(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request(body(**fields))
    assert caught.value.status == 400
    return caught.value


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "Look."}, {"type": "text", "text": "Why?"}]
    request = parse_request(body(messages=[{"role": "user", "content": parts}]))
    assert request.messages[0].content == "Look.\nWhy?"


def test_an_answer_of_an_earlier_turn_can_be_sent_back_as_the_client_dumps_it() -> None:
    earlier = {
        "role": "assistant",
        "content": "Because.",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    request = parse_request(body(messages=[QUESTION, earlier, QUESTION]))
    assert request.messages[1].content == "Because."


@pytest.mark.parametrize(
    "neutral",
    [
        {"n": 1},
        {"tools": []},
        {"tools": [], "tool_choice": "auto"},
        {"tool_choice": "none"},
        {"frequency_penalty": 0, "presence_penalty": 0.0},
        {"logit_bias": {}},
        {"frequency_penalty": None, "presence_penalty": None, "logit_bias": None},
        {"top_k": 0, "min_p": 0, "repetition_penalty": 1},
        {"top_k": -1, "min_p": None, "repetition_penalty": None},
        {"logprobs": False, "top_logprobs": 0},
        {"top_logprobs": None},
        {"response_format": {"type": "text"}},
        {"parallel_tool_calls": False},
        {"reasoning_effort": None},
        {"functions": [], "function_call": "auto"},
        {"documents": [], "best_of": 1, "use_beam_search": False, "guided_json": None},
        {"grammar": "", "regex": "", "ebnf": None, "json_schema": None, "format": ""},
        {"modalities": ["text"]},
        {"store": True},
        {"user": "u1", "safety_identifier": "s1", "metadata": {"k": "v"}},
        {"stream": None, "stream_options": None, "plato": None, "stop": None},
        {"max_tokens": 5, "max_completion_tokens": 5},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    ],
)
def test_neutral_values_are_accepted_without_a_word(neutral: dict[str, Any]) -> None:
    assert parse_request(body(**neutral)).ignored == ()


def test_a_list_that_is_too_short_is_told_in_our_words() -> None:
    assert refusal(messages=[]).message == "'messages' should have at least 1 item"


def test_a_request_may_leave_the_model_out() -> None:
    assert parse_request(json.dumps({"messages": [QUESTION]})).model is None


@pytest.mark.parametrize(
    ("hints", "ignored"),
    [
        ({"reasoning_effort": "low", "verbosity": "high"}, ("reasoning_effort", "verbosity")),
        ({"service_tier": "flex", "prompt_cache_key": "k"}, ("prompt_cache_key", "service_tier")),
        ({"prediction": {"type": "content", "content": "x"}}, ("prediction",)),
        ({"typical_p": 0.5, "mirostat": 2, "body": 5}, ("body", "mirostat", "typical_p")),
        ({"tools": [{"type": "function"}], "tool_choice": "auto"}, ("tools",)),
        ({"tools": [{"type": "function"}], "tool_choice": "none"}, ("tools",)),
        ({"functions": [{"name": "f"}]}, ("functions",)),
        ({"store": False}, ("store",)),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            ("stream_options.include_obfuscation",),
        ),
        ({"messages": [{**QUESTION, "name": "Ann", "id": "m1"}]}, ("messages.id", "messages.name")),
    ],
)
def test_hints_are_accepted_and_named(hints: dict[str, Any], ignored: tuple[str, ...]) -> None:
    assert parse_request(body(**hints)).ignored == ignored


@pytest.mark.hostile
def test_few_ignored_parameters_are_named_however_many_there_are() -> None:
    names = parse_request(body(**{f"{i:03}{'x' * 100}": 1 for i in range(200)})).ignored
    assert len(names) == 32
    assert (len(names[0]), names[0][:4], names[-1][:4]) == (64, "000x", "031x")


def test_a_choice_of_tools_that_allows_text_is_accepted() -> None:
    inner = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}
    parse_request(body(tool_choice={"type": "allowed_tools", "allowed_tools": inner}))
    parse_request(body(tool_choice={"type": "allowed_tools", **inner}))


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"n": 2}, "n", "unsupported_value"),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_value"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            "tool_choice",
            "unsupported_value",
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": []}},
            "tool_choice",
            "unsupported_value",
        ),
        ({"function_call": {"name": "f"}}, "function_call", "unsupported_value"),
        ({"guided_regex": "[a-z]+"}, "guided_regex", "unsupported_value"),
        ({"grammar": 'root ::= "a"'}, "grammar", "unsupported_value"),
        ({"grammar": {"type": "regex", "value": "a"}}, "grammar", "unsupported_value"),
        ({"json_schema": {"type": "object"}}, "json_schema", "unsupported_value"),
        ({"json_schema": '{"type": "object"}'}, "json_schema", "unsupported_value"),
        ({"regex": "[a-z]+"}, "regex", "unsupported_value"),
        ({"ebnf": 'root ::= "a"'}, "ebnf", "unsupported_value"),
        ({"format": "json"}, "format", "unsupported_value"),
        ({"format": {"type": "object"}}, "format", "unsupported_value"),
        ({"documents": [{"text": "x"}]}, "documents", "unsupported_value"),
        ({"best_of": 2}, "best_of", "unsupported_value"),
        ({"model": 5}, "model", "invalid_type"),
        ({"logprobs": True}, "logprobs", "unsupported_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": "json"}, "response_format", "invalid_type"),
        ({"plato": {"speed": 11}}, "plato.speed", "unknown_parameter"),
        ({"plato": {"mode": "fast"}}, "plato.mode", "invalid_value"),
        ({"plato": {"max_nodes": 1}}, "plato.max_nodes", "invalid_value"),
        ({"plato": {"max_nodes": 33}}, "plato.max_nodes", "invalid_value"),
        ({"plato": {"plan": [{"titel": "x"}]}}, "plato.plan.0.title", "missing_required_parameter"),
        ({"plato": {"events": True}}, "plato.events", "invalid_value"),
        ({"plato": {"exact_lengths": True}}, "plato.exact_lengths", "invalid_value"),
        ({"plato": {"decode_plan": True}}, "plato.decode_plan", "invalid_value"),
        ({"temperature": 2.5}, "temperature", "invalid_value"),
        ({"temperature": "0.5"}, "temperature", "invalid_type"),
        ({"temperature": float("nan")}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_k": -2}, "top_k", "invalid_value"),
        ({"top_k": 10**9 + 1}, "top_k", "invalid_value"),
        ({"top_k": 1.5}, "top_k", "invalid_type"),
        ({"top_k": "5"}, "top_k", "invalid_type"),
        ({"min_p": 1.1}, "min_p", "invalid_value"),
        ({"presence_penalty": 2.1}, "presence_penalty", "invalid_value"),
        ({"frequency_penalty": -2.1}, "frequency_penalty", "invalid_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"repetition_penalty": 1e-10}, "repetition_penalty", "invalid_value"),
        ({"repetition_penalty": 2.5}, "repetition_penalty", "invalid_value"),
        ({"logit_bias": [5]}, "logit_bias", "invalid_type"),
        ({"logit_bias": {"5": "1"}}, "logit_bias.5", "invalid_type"),
        ({"logit_bias": {str(i): 1 for i in range(301)}}, "logit_bias", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "invalid_value"),
        ({"stop": ""}, "stop.0", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [QUESTION, {"role": "assistant", "content": "B"}]}, "messages", None),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": None}]},
            "messages.0.content",
            "missing_required_parameter",
        ),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "invalid_type"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "missing_required_parameter"),
        ({"messages": [{"role": "robot", "content": "?"}]}, "messages.0.role", "invalid_value"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    fields: dict[str, Any], param: str, code: str | None
) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert error.code == code or code is None
    assert error.message.startswith(f"'{param}' ")


def test_other_names_of_response_format_are_refused_with_its_own() -> None:
    message = refusal(grammar='root ::= "a"').message
    assert message == "'grammar' is not supported; use response_format with a JSON schema"


def test_the_modes_that_exist_are_named() -> None:
    message = refusal(plato={"mode": "fast"}).message
    assert message == "'plato.mode' should be 'plato', 'skeleton', 'sequential' or 'auto'"


@pytest.mark.parametrize(
    "key", ["the", "", "-1", "+1", "01", "1.0", "1e3", " 1", "\u0661", "9999999999"]
)
def test_biases_name_tokens_by_their_ids(key: str) -> None:
    error = refusal(logit_bias={"5": 1, key: 1})
    assert error.message == (
        f"'logit_bias' has the key {key!r}; keys are token ids, such as \"50\""
    )


@pytest.mark.parametrize("bias", [100.5, -101])
def test_biases_have_bounds(bias: float) -> None:
    parse_request(body(logit_bias={"0": -100, "5": 100.0}))
    error = refusal(logit_bias={"5": bias})
    assert error.message == f"'logit_bias' adds {bias:g} to token 5; send -100 to 100"
    assert error.param == "logit_bias"


def test_images_are_refused_in_words() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    error = refusal(messages=[{"role": "user", "content": [{"type": "text", "text": "?"}, image]}])
    assert error.param == "messages.0.content"
    assert "part 1 is of type 'image_url'" in error.message
    assert "text only" in error.message


def test_a_sequential_answer_has_no_plan() -> None:
    error = refusal(plato={"mode": "sequential", "plan": [{"title": "A"}, {"title": "B"}]})
    assert error.param == "plato.plan"


def test_a_mode_in_the_name_of_the_model_counts_like_any_other() -> None:
    plan = [{"title": "A"}, {"title": "B"}]
    assert refusal(model="m:sequential", plato={"plan": plan}).param == "plato.plan"
    error = refusal(model="m:sequential", plato={"mode": "plato"})
    assert error.message == (
        "'plato.mode' is 'plato', but the name of the model asks for 'sequential'; remove one of "
        "them"
    )


def test_exact_lengths_need_a_length_for_everything() -> None:
    plan: list[dict[str, Any]] = [{"title": "A", "max_tokens": 5}, {"title": "B", "max_tokens": 5}]
    parse_request(body(plato={"plan": plan, "exact_lengths": True}))
    parse_request(body(plato={"mode": "sequential", "exact_lengths": True}, max_tokens=5))
    del plan[1]["max_tokens"]
    assert refusal(plato={"plan": plan, "exact_lengths": True}).param == "plato.exact_lengths"
    error = refusal(plato={"mode": "sequential", "exact_lengths": True})
    assert error.param == "max_tokens"


@pytest.mark.parametrize("text", ["", "{", "[1]", "5", b"\xff", '{"model": "\\ud800"}'])
def test_a_body_that_is_no_json_object_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidRequestError, match="the body") as caught:
        parse_request(text)
    assert caught.value.param is None


def test_everything_that_is_wrong_is_named_in_one_error() -> None:
    error = refusal(temperature=3, top_p=0, n=2)
    assert error.param == "n"
    assert error.message.endswith("(also wrong: temperature, top_p)")
    assert str(error) == error.message

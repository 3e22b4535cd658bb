"""Whatever clients keep of a conversation, the model gets it as text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from plato.api.questions.messages import SEPARATOR, ChatMessage, to_conversation
from plato.api.questions.requests import parse_request
from plato.errors import InvalidRequestError
from plato.runs import Message

QUESTION = {"role": "user", "content": "Why?"}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
}


def conversation(*messages: dict[str, Any]) -> tuple[Message, ...]:
    return to_conversation(parse_request(json.dumps({"messages": messages})).messages)


def test_a_developer_speaks_as_the_system() -> None:
    told = conversation({"role": "developer", "content": "Be brief."}, QUESTION)
    assert told == (Message("system", "Be brief."), Message("user", "Why?"))


def test_tool_calls_and_their_results_are_text() -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "5 degrees"}
    assert conversation(QUESTION, called, result) == (
        Message("user", "Why?"),
        Message("assistant", 'Call weather({"city": "Oslo"})'),
        Message("user", "Result of weather:\n5 degrees"),
    )


def test_an_answer_with_text_and_calls_keeps_both() -> None:
    custom = {"id": "c2", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    called = {"role": "assistant", "content": "One moment.", "tool_calls": [CALL, custom]}
    _, answer, _ = conversation(QUESTION, called, QUESTION)
    assert answer.content == 'One moment.\n\nCall weather({"city": "Oslo"})\n\nCall shell(ls)'


def test_results_in_a_row_and_the_question_behind_them_are_one_message() -> None:
    """Some templates demand that roles alternate."""
    called = {"role": "assistant", "tool_calls": [CALL, {**CALL, "id": "c2"}]}
    results = [{"role": "tool", "tool_call_id": name, "content": name} for name in ("c1", "c2")]
    *_, last = conversation(QUESTION, called, *results, QUESTION)
    assert last == Message("user", "Result of weather:\nc1\n\nResult of weather:\nc2\n\nWhy?")


class CountingSeparator(str):
    """Counts the characters that it joins."""

    copied = 0

    def join(self, texts: Iterable[str], /) -> str:
        joined = super().join(texts)
        self.copied += len(joined)
        return joined


@pytest.mark.hostile
def test_thousands_of_results_are_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, each copied all that precede it, which blocked the event loop for seconds."""
    separator = CountingSeparator(SEPARATOR)
    monkeypatch.setattr("plato.api.questions.messages.SEPARATOR", separator)
    results = [ChatMessage(role="tool", content=f"{number}") for number in range(5000)]
    (only,) = to_conversation([*results, ChatMessage(role="user", content="Why?")])
    assert only.content.startswith("Result of the call:\n0\n\nResult of the call:\n1\n\n")
    assert only.content.endswith("Result of the call:\n4999\n\nWhy?")
    assert separator.copied == len(only.content)


def test_two_questions_in_a_row_stay_two_messages() -> None:
    assert conversation(QUESTION, QUESTION) == (Message("user", "Why?"),) * 2


def test_the_older_form_of_calls_is_text_too() -> None:
    called = {"role": "assistant", "content": None, "function_call": CALL["function"]}
    result = {"role": "function", "name": "weather", "content": "5 degrees"}
    *_, answer, last = conversation(QUESTION, called, result)
    assert answer.content == 'Call weather({"city": "Oslo"})'
    assert last.content == "Result of weather:\n5 degrees"


def test_a_result_whose_call_is_unknown_is_still_told() -> None:
    (only,) = conversation({"role": "tool", "tool_call_id": "gone", "content": "5"})
    assert only == Message("user", "Result of the call:\n5")


def test_an_answer_may_be_a_list_of_parts_and_a_refusal() -> None:
    parts = [
        {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}},
        {"type": "refusal", "refusal": "Not two."},
    ]
    _, answer, _ = conversation(QUESTION, {"role": "assistant", "content": parts}, QUESTION)
    assert answer.content == "One.\nNot two."
    refused = {"role": "assistant", "content": None, "refusal": "No."}
    assert conversation(QUESTION, refused, QUESTION)[1] == Message("assistant", "No.")


def test_an_answer_without_anything_is_empty() -> None:
    assert conversation(QUESTION, {"role": "assistant"}, QUESTION)[1].content == ""


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "assistant", "tool_calls": [5]}, "messages.0.tool_calls.0"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "function.name"),
        ({"role": "assistant", "tool_calls": [CALL] * 129}, "messages.0.tool_calls"),
        ({"role": "tool", "content": None}, "messages.0.content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.0.content"),
        ({"role": "user", "content": {"text": "x"}}, "messages.0.content"),
        ({"role": "user", "content": "x", "audio": {"id": "a"}}, "messages.0.audio"),
    ],
)
def test_what_is_no_message_is_refused(message: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        conversation(message, QUESTION)
    assert param in str(caught.value.param)

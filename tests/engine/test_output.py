"""Where sequences end, whatever engine decodes them."""

from __future__ import annotations

from typing import Any

import pytest

from plato.engine import FinishReason, Load, StopConditions
from plato.engine.output import Output
from tests.engine.helpers import ask, some_tokens

END = 2
TEXT = "One. Two is 2.5 here.\nThree"


@pytest.fixture
def tokens(tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(TEXT, add_special_tokens=False).input_ids
    return ids


def new_output(tokenizer: Any, **fields: Any) -> Output:
    fields = {"stop": StopConditions(), "max_tokens": 50, **fields}
    return Output(ask(some_tokens(3), **fields), tokenizer.backend_tokenizer, frozenset({END}))


def decode(output: Output, tokens: list[int]) -> str:
    """One token at a time, until the output ends."""
    text = ""
    for token in tokens:
        output.append([token])
        text += output.release()
        if output.finish is not None:
            break
    return text


def test_the_budget_ends_an_output(tokenizer: Any, tokens: list[int]) -> None:
    output = new_output(tokenizer, max_tokens=4)
    assert output.append(tokens) == 4
    output.release()
    assert (output.tokens, output.finish) == (tokens[:4], FinishReason.LENGTH)


def test_an_end_token_ends_an_output_and_nothing_follows_it(
    tokenizer: Any, tokens: list[int]
) -> None:
    output = new_output(tokenizer)
    assert output.append([*tokens, END, *tokens]) == len(tokens) + 1
    assert (output.release(), output.finish) == (TEXT, FinishReason.STOP)


def test_end_tokens_can_be_ignored(tokenizer: Any, tokens: list[int]) -> None:
    output = new_output(tokenizer, stop=StopConditions(end_tokens=False))
    output.append([END, *tokens])
    output.release()
    assert output.finish is None


def test_a_stop_string_over_token_boundaries_cuts_the_text(
    tokenizer: Any, tokens: list[int]
) -> None:
    output = new_output(tokenizer, stop=StopConditions(strings=("here.\nTh",)))
    assert decode(output, tokens) == "One. Two is 2.5 "
    assert output.finish is FinishReason.STOP


def test_from_some_length_on_a_sentence_ends_an_output(tokenizer: Any, tokens: list[int]) -> None:
    output = new_output(tokenizer, stop=StopConditions(sentence_from=4))
    assert decode(output, tokens) == "One. Two is 2.5 here."
    assert output.finish is FinishReason.LENGTH


def test_an_output_resumes_after_what_was_emitted(tokenizer: Any, tokens: list[int]) -> None:
    output = new_output(tokenizer, emitted=tuple(tokens[:3]), max_tokens=5)
    first = decode(new_output(tokenizer), tokens[:3])
    assert first + decode(output, tokens[3:]) == tokenizer.decode(tokens[:5])
    assert output.finish is FinishReason.LENGTH


def test_chunks_report_every_token_once(tokenizer: Any, tokens: list[int]) -> None:
    output = new_output(tokenizer)
    output.scores = (-0.5,)
    about: dict[str, Any] = {"cached_tokens": 2, "replica": "r", "epoch": "e", "load": Load()}
    output.append(tokens[:2])
    first = output.chunk(output.release(), **about)
    output.append([*tokens[2:5], END])
    second = output.chunk(output.release(), **about)
    assert (first.offset, first.tokens, first.scores) == (0, tuple(tokens[:2]), (-0.5,))
    assert (second.offset, second.tokens, second.scores) == (2, (*tokens[2:5], END), ())
    assert (first.finish, second.finish) == (None, FinishReason.STOP)
    assert second.prompt_tokens == 3


def test_text_is_released_once_and_all_of_it_when_an_engine_ends_the_output(
    tokenizer: Any, tokens: list[int]
) -> None:
    output = new_output(tokenizer, stop=StopConditions(strings=("Three!",)))
    output.append(tokens)
    text = output.release()
    assert text + output.release() == TEXT.removesuffix("Three")
    output.finish = FinishReason.LENGTH
    assert output.release() == "Three"

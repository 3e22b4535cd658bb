from __future__ import annotations

import pytest

from plato.planning import wording
from plato.planning.parser import PlanParser
from plato.planning.prompt import (
    HISTORY_TOKENS,
    QUESTION_HEAD_TOKENS,
    QUESTION_TAIL_TOKENS,
    PlanningPrompt,
)
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import Message
from tests.prompting.reference import hf_of

QUESTION = Message("user", "How can I sleep better?")


@pytest.fixture(scope="module")
def planning(tokenizer: Tokenizer, template: ChatTemplate) -> PlanningPrompt:
    return PlanningPrompt(tokenizer, template)


def test_the_examples_are_plans_of_the_plan_language() -> None:
    kinds = set()
    for _, text in wording.EXAMPLES:
        parser = PlanParser()
        parser.feed(text)
        parser.finish()
        kinds.add("one" if parser.one else "plan")
        kinds |= {"needs" for node in parser.nodes if node.dependencies}
    assert kinds == {"one", "plan", "needs"}


def test_the_prompt_is_the_conversation_that_the_template_renders(
    planning: PlanningPrompt, tokenizer: Tokenizer
) -> None:
    turns = [{"role": "system", "content": wording.INSTRUCTION}]
    for question, plan in wording.EXAMPLES:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": plan}]
    turns.append({"role": "user", "content": QUESTION.content})
    expected = hf_of(tokenizer).apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )

    prompt = planning.build([QUESTION], "")
    assert tokenizer.decode(prompt.tokens, special=True) == expected


def test_everything_before_the_question_is_public_and_equal_for_all_tenants(
    planning: PlanningPrompt, tokenizer: Tokenizer
) -> None:
    mine = planning.build([QUESTION], "mine")
    other = planning.build([Message("user", "Why is the sky blue?")], "other")

    assert mine.hashes[0] == other.hashes[0]
    assert mine.public_tokens == other.public_tokens == len(mine.segments[0].tokens)
    assert QUESTION.content not in tokenizer.decode(mine.segments[0].tokens)


def test_the_same_question_of_another_tenant_is_another_prefix(planning: PlanningPrompt) -> None:
    mine, other = (planning.build([QUESTION], tenant) for tenant in ("mine", "other"))
    assert mine.tokens == other.tokens
    assert mine.hashes[1] != other.hashes[1]


def test_a_long_question_is_shown_by_its_start_and_its_end(
    planning: PlanningPrompt, tokenizer: Tokenizer
) -> None:
    text = "Read this. " + "Lorem ipsum dolor. " * 2000 + "What is it about?"
    shown = planning.build([Message("user", text)], "").segments[1].tokens
    written = tokenizer.decode(shown)

    assert len(shown) <= QUESTION_HEAD_TOKENS + QUESTION_TAIL_TOKENS + 10
    assert written.startswith("Read this.")
    assert wording.CUT in written
    assert written.endswith("What is it about?")


def test_the_end_of_the_conversation_stands_before_the_question(
    planning: PlanningPrompt, tokenizer: Tokenizer
) -> None:
    messages = [
        Message("system", "You are terse."),
        Message("user", "An early question. " * 500),
        Message("assistant", "Tea has caffeine."),
        QUESTION,
    ]
    shown = planning.build(messages, "").segments[1].tokens
    written = tokenizer.decode(shown)

    assert len(shown) <= HISTORY_TOKENS + 40
    assert written.endswith(f"Assistant: Tea has caffeine.\n\nQuestion:\n{QUESTION.content}")
    assert "terse" not in written


def test_markup_in_a_question_stays_text(planning: PlanningPrompt, tokenizer: Tokenizer) -> None:
    shown = planning.build([Message("user", "Stop.<|im_end|>")], "").segments[1].tokens
    assert not set(shown) & tokenizer.special
    assert tokenizer.decode(shown) == "Stop.<|im_end|>"

from __future__ import annotations

import re

import pytest

from plato.engine import Segment
from plato.planning import wording
from plato.planning.decision import LETTERS, dependency_answer, dependency_line
from plato.planning.parser import parse_plan
from plato.planning.prompt import (
    HISTORY_TOKENS,
    QUESTION_HEAD_TOKENS,
    QUESTION_TAIL_TOKENS,
    PlanningPrompt,
    shown_question,
)
from plato.planning.wording import Wording
from plato.prompting import ChatTemplate, Tokenizer, TranscriptLayout
from plato.runs import Message
from plato.settings import MAX_NODES
from tests.prompting.reference import hf_of

QUESTION = Message("user", "How can I sleep better?")


@pytest.fixture(scope="module")
def planning(tokenizer: Tokenizer, template: ChatTemplate) -> PlanningPrompt:
    return PlanningPrompt(wording.DEPENDENCIES, tokenizer, template)


@pytest.fixture(scope="module")
def asked(tokenizer: Tokenizer) -> Segment:
    return shown_question(tokenizer, [QUESTION])


def test_the_examples_of_split_decisions_are_plans_and_as_many_refusals_to_plan() -> None:
    plans = [parse_plan(text, MAX_NODES) for _, text in wording.SPLIT.examples]
    assert plans.count(()) == len(plans) / 2
    assert any(node.dependencies for nodes in plans for node in nodes)


def test_the_examples_of_dependencies_are_lines_as_decisions_build_them() -> None:
    for _, text in wording.DEPENDENCIES.examples:
        for number, line in enumerate(text.splitlines(), start=1):
            title, _, names = line.removeprefix(f"{LETTERS[number - 1]}: ").partition(". Uses ")
            needed = [LETTERS.index(name) + 1 for name in re.findall(r"\b[A-Z]\b", names)]
            assert all(earlier < number for earlier in needed)
            assert f"{line}\n" == dependency_line(number, title) + dependency_answer(needed)


@pytest.mark.parametrize("asks", [wording.OUTLINE, wording.SPLIT, wording.DEPENDENCIES])
@pytest.mark.parametrize("ask", ["", wording.points(3)])
def test_the_prompt_is_the_conversation_that_the_template_renders(
    tokenizer: Tokenizer, template: ChatTemplate, asks: Wording, ask: str
) -> None:
    turns = [{"role": "system", "content": asks.instruction}] if asks.instruction else []
    for question, plan in asks.examples:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": plan}]
    turns.append({"role": "user", "content": QUESTION.content + ask})
    expected = hf_of(tokenizer).apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )

    planning = PlanningPrompt(asks, tokenizer, template)
    prompt = planning.build(shown_question(tokenizer, [QUESTION]), "", ask=ask)
    assert tokenizer.decode(prompt.tokens, special=True) == expected


@pytest.mark.parametrize(
    ("count", "number"), [(2, "two"), (3, "three"), (10, "ten"), (11, "11"), (32, "32")]
)
def test_an_outline_is_asked_for_with_the_number_of_its_parts(count: int, number: str) -> None:
    asked = "\n\nAnswer with a list of the {} most important points."
    assert wording.points(count) == asked.format(number)


def test_an_outline_shares_the_kv_of_the_question_with_a_sequential_answer(
    tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    question = shown_question(tokenizer, [QUESTION])
    planning = PlanningPrompt(wording.OUTLINE, tokenizer, template)
    outline = planning.build(question, "tenant", ask=wording.points(3))
    sequential = TranscriptLayout(tokenizer, template, 2048).sequential([QUESTION], "tenant")

    shared = len(planning.public) + len(question.tokens)
    assert outline.tokens[:shared] == sequential.tokens[:shared]
    # Both are public up to the question, and belong to the tenant from there.
    assert outline.public_tokens == sequential.public_tokens == len(planning.public)


def test_lines_open_the_answer_and_more_lines_continue_fewer(
    planning: PlanningPrompt, asked: Segment, tokenizer: Tokenizer
) -> None:
    lines = ["A: Soil. Uses nothing\n", "B: Water. Uses A\n", "C: Sun. Uses"]
    plain, one, three = (
        planning.build(asked, "", lines=lines[:number]).tokens for number in (0, 1, 3)
    )
    assert one[: len(plain)] == plain
    assert three[: len(one)] == one
    assert tokenizer.decode(three[len(plain) :]) == "".join(lines)
    messages = planning.build(asked, "", lines=lines).messages
    assert [role for role, _ in messages[-2:]] == ["user", "assistant"]
    assert tokenizer.decode(messages[-1][1]) == "".join(lines)


def test_everything_before_the_question_is_public_and_equal_for_all_tenants(
    planning: PlanningPrompt, asked: Segment, tokenizer: Tokenizer
) -> None:
    mine = planning.build(asked, "mine")
    blue = shown_question(tokenizer, [Message("user", "Why is the sky blue?")])
    other = planning.build(blue, "other")

    public = len(planning.public.segments)
    assert mine.hashes[:public] == other.hashes[:public] == planning.public.hashes
    assert mine.public_tokens == other.public_tokens == len(planning.public)
    assert QUESTION.content not in tokenizer.decode(planning.public.tokens)


def test_the_same_question_of_another_tenant_is_another_prefix(
    planning: PlanningPrompt, asked: Segment
) -> None:
    mine, other = (planning.build(asked, tenant) for tenant in ("mine", "other"))
    assert mine.tokens == other.tokens
    public = len(planning.public.segments)
    assert mine.hashes[:public] == other.hashes[:public] == planning.public.hashes
    assert mine.hashes[public] != other.hashes[public]


def shown(tokenizer: Tokenizer, *messages: Message) -> tuple[tuple[int, ...], str]:
    """The tokens of what is shown of a conversation, and their text."""
    tokens = shown_question(tokenizer, messages).tokens
    return tokens, tokenizer.decode(tokens)


def test_a_short_question_is_shown_as_it_is_without_space_around_it(tokenizer: Tokenizer) -> None:
    assert shown(tokenizer, Message("user", f"\n {QUESTION.content} \n"))[1] == QUESTION.content


def test_a_long_question_is_shown_by_its_start_and_its_end(tokenizer: Tokenizer) -> None:
    text = "Read this. " + "Lorem ipsum dolor. " * 2000 + "What is it about?"
    tokens, written = shown(tokenizer, Message("user", text))

    assert len(tokens) <= QUESTION_HEAD_TOKENS + QUESTION_TAIL_TOKENS + 10
    assert written.startswith("Read this.")
    assert wording.CUT in written
    assert written.endswith("What is it about?")


def test_the_end_of_the_conversation_stands_before_the_question(tokenizer: Tokenizer) -> None:
    tokens, written = shown(
        tokenizer,
        Message("user", "An early question. " * 500),
        Message("assistant", "Tea has caffeine."),
        QUESTION,
    )
    assert len(tokens) <= HISTORY_TOKENS + 40
    assert written.endswith(f"Assistant: Tea has caffeine.\n\nQuestion:\n{QUESTION.content}")


def test_the_caller_s_system_message_is_not_shown(tokenizer: Tokenizer) -> None:
    style, thanks = Message("system", "You are terse."), Message("user", "Thanks.")
    assert shown(tokenizer, style, QUESTION) == shown(tokenizer, QUESTION)
    assert shown(tokenizer, style, thanks, QUESTION) == shown(tokenizer, thanks, QUESTION)


def test_markup_in_a_question_stays_text(tokenizer: Tokenizer) -> None:
    tokens, written = shown(tokenizer, Message("user", "Stop.<|im_end|>"))
    assert not set(tokens) & tokenizer.special
    assert written == "Stop.<|im_end|>"

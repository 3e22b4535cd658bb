"""Samples have the tokens that a planner and a scheduler send, and learn what is right."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from plato.planning import wording
from plato.planning.decision import dependency_answer
from plato.planning.grammar import outline_line
from plato.planning.parser import ONE
from plato.prompting import ChatTemplate, Tokenizer
from plato.runs import Node
from plato.tuning.examples import Example, Kind
from plato.tuning.samples import SampleBuilder, Skill

PLAN = (
    Node(1, "Solar power"),
    Node(2, "Wind power"),
    Node(3, "Making the choice", (1, 2)),
    Node(4, "First steps", (3,)),
)
TEXTS = ("The sun is free.", "So is the wind.", "Take both.", "Ask a builder.")
EXAMPLE = Example("Solar or wind?", Kind.COMPARE, PLAN, TEXTS)


@pytest.fixture(scope="module")
def builder(tokenizer: Tokenizer, template: ChatTemplate) -> SampleBuilder:
    return SampleBuilder(tokenizer, template, 2048)


def test_an_example_teaches_what_it_has(builder: SampleBuilder) -> None:
    def skills(example: Example) -> list[Skill]:
        return [sample.skill for sample in builder.samples(example)]

    # The third part continues the first, and the fourth the third: they are in one sample.
    written = [Skill.OUTLINE, *[Skill.PART] * 2]
    assert skills(EXAMPLE) == [Skill.SPLIT, *written, Skill.DEPENDENCIES]
    assert skills(replace(EXAMPLE, texts=())) == [Skill.SPLIT, Skill.DEPENDENCIES]
    assert skills(replace(EXAMPLE, texts=(), kind=None)) == [Skill.DEPENDENCIES]
    assert skills(Example("Who?", Kind.FACT)) == [Skill.SPLIT]


def test_what_is_not_learned_is_to_stay_as_it_is(
    builder: SampleBuilder, tokenizer: Tokenizer
) -> None:
    def ordinary(example: Example) -> list[str]:
        return [tokenizer.decode(prompt) for prompt in builder.ordinary(example)]

    question, *parts = ordinary(replace(EXAMPLE, contexts=frozenset({2, 3})))
    assert "Solar or wind?" in question
    assert wording.points(4) not in question
    assert ["Wind power" in part for part in parts] == [True]
    # Texts are learned, and titles that are not learned are none of a planner.
    assert ordinary(EXAMPLE) == ordinary(replace(EXAMPLE, texts=())) == [question]


def test_titles_are_written_as_a_planner_reads_them(
    builder: SampleBuilder, tokenizer: Tokenizer
) -> None:
    sample = builder.outline(EXAMPLE)
    (span,) = sample.spans
    written = tokenizer.decode(sample.tokens[span.start : -1])
    assert written == "".join(outline_line(node.number, node.title) for node in PLAN)
    assert sample.tokens[-1] in tokenizer.end_tokens
    asked = tokenizer.decode(sample.tokens[: span.start])
    assert asked.count(wording.points(4)) == 1


def test_every_dependency_is_decided_after_the_right_lines_before_it(
    builder: SampleBuilder, tokenizer: Tokenizer
) -> None:
    sample = builder.dependencies(EXAMPLE)
    assert [choice.targets for choice in sample.choices] == [
        (1.0, 0.0),
        (0.0, 0.5, 0.5),
        (0.0, 0.0, 0.0, 1.0),
    ]
    for node, choice in zip(PLAN[1:], sample.choices, strict=True):
        before = tokenizer.decode(sample.tokens[: choice.position + 1])
        assert before.endswith(f"{node.title}. Uses")
        lines = before.rsplit("A: ", 1)[1]
        for earlier in PLAN[: node.number - 1]:
            assert f"{earlier.title}. Uses{dependency_answer(earlier.dependencies)}" in lines


def test_noise_changes_what_is_read_and_not_what_is_right(builder: SampleBuilder) -> None:
    clean = builder.dependencies(EXAMPLE)
    noisy = [builder.dependencies(EXAMPLE, random.Random(seed)) for seed in range(20)]
    assert {sample.tokens for sample in noisy} > {clean.tokens}
    for sample in noisy:
        assert [choice.targets for choice in sample.choices] == [c.targets for c in clean.choices]


@pytest.mark.parametrize(("plan", "targets"), [(PLAN, (0.0, 1.0)), ((), (1.0, 0.0))])
def test_the_split_is_decided_at_the_first_token(
    plan: tuple[Node, ...],
    targets: tuple[float, ...],
    builder: SampleBuilder,
    tokenizer: Tokenizer,
) -> None:
    kind = Kind.COMPARE if plan else Kind.STORY
    (choice,) = builder.split(Example("Solar or wind?", kind, plan)).choices
    assert choice.targets == targets
    assert choice.candidates[0] == tokenizer.text(ONE)[0]


def test_parts_follow_the_texts_that_they_need(
    builder: SampleBuilder, tokenizer: Tokenizer
) -> None:
    second, rest = builder.parts(EXAMPLE)
    # Each sample has every text once, after those that it needs.
    for sample, numbers in ((second, (2,)), (rest, (1, 3, 4))):
        for number, text in zip(numbers, sample.spans, strict=True):
            assert tokenizer.decode(sample.tokens[text.start : text.stop - 1]) == TEXTS[number - 1]
            assert sample.tokens[text.stop - 1] in tokenizer.end_tokens
            asked = tokenizer.decode(sample.tokens[: text.start])
            assert asked.rstrip().endswith(f"about: {PLAN[number - 1].title}.\nassistant")
    first, third, _ = rest.spans
    assert TEXTS[1] in tokenizer.decode(rest.tokens[first.stop : third.start])
    assert TEXTS[0] not in tokenizer.decode(second.tokens)


def test_a_text_that_is_not_learned_is_only_seen(
    builder: SampleBuilder, tokenizer: Tokenizer
) -> None:
    (rest,) = builder.parts(replace(EXAMPLE, contexts=frozenset({1, 2, 3})))
    (span,) = rest.spans
    assert tokenizer.decode(rest.tokens[span.start : -1]) == TEXTS[3]
    assert TEXTS[0] in tokenizer.decode(rest.tokens[: span.start])


def test_a_part_without_the_texts_that_it_sees_is_left_out(
    builder: SampleBuilder, tokenizer: Tokenizer
) -> None:
    (first,) = builder.parts(replace(EXAMPLE, texts=(TEXTS[0], None, TEXTS[2], TEXTS[3])))
    assert tokenizer.decode(first.tokens[first.spans[0].start : -1]) == TEXTS[0]


def test_a_plan_with_more_parts_than_letters_is_cut(builder: SampleBuilder) -> None:
    plan = tuple(Node(number, f"Title {number}") for number in range(1, 33))
    assert len(builder.dependencies(Example("Why?", None, plan)).choices) == 25

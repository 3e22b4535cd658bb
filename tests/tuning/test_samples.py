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
from plato.tuning.samples import Skill, Teacher

PLAN = (
    Node(1, "Solar power"),
    Node(2, "Wind power"),
    Node(3, "Making the choice", (1, 2)),
    Node(4, "First steps", (3,)),
)
TEXTS = ("The sun is free.", "So is the wind.", "Take both.", "Ask a builder.")
EXAMPLE = Example("Solar or wind?", Kind.COMPARE, PLAN, TEXTS)


@pytest.fixture(scope="module")
def teacher(tokenizer: Tokenizer, template: ChatTemplate) -> Teacher:
    return Teacher(tokenizer, template, 2048)


def test_an_example_teaches_what_it_has(teacher: Teacher) -> None:
    def skills(example: Example) -> list[Skill]:
        return [sample.skill for sample in teacher.samples(example)]

    planning = [Skill.SPLIT, Skill.OUTLINE, Skill.DEPENDENCIES]
    assert skills(EXAMPLE) == [*planning, *[Skill.PART] * 4]
    assert skills(replace(EXAMPLE, texts=())) == planning
    assert skills(replace(EXAMPLE, texts=(), kind=None)) == [Skill.DEPENDENCIES]
    assert skills(Example("Who?", Kind.FACT)) == [Skill.SPLIT]


def test_titles_are_written_as_a_planner_reads_them(teacher: Teacher, tokenizer: Tokenizer) -> None:
    sample = teacher.outline(EXAMPLE)
    written = tokenizer.decode(sample.tokens[-sample.written : -1])
    assert written == "".join(outline_line(node.number, node.title) for node in PLAN)
    assert sample.tokens[-1] in tokenizer.end_tokens
    asked = tokenizer.decode(sample.tokens[: -sample.written])
    assert asked.count(wording.points(4)) == 1


def test_every_dependency_is_decided_after_the_right_lines_before_it(
    teacher: Teacher, tokenizer: Tokenizer
) -> None:
    sample = teacher.dependencies(EXAMPLE)
    assert [choice.shares for choice in sample.choices] == [
        (1.0, 0.0),
        (0.0, 0.5, 0.5),
        (0.0, 0.0, 0.0, 1.0),
    ]
    for node, choice in zip(PLAN[1:], sample.choices, strict=True):
        before = tokenizer.decode(sample.tokens[: choice.place + 1])
        assert before.endswith(f"{node.title}. Uses")
        lines = before.rsplit("A: ", 1)[1]
        for earlier in PLAN[: node.number - 1]:
            assert f"{earlier.title}. Uses{dependency_answer(earlier.dependencies)}" in lines


def test_noise_changes_what_is_read_and_not_what_is_right(teacher: Teacher) -> None:
    clean = teacher.dependencies(EXAMPLE)
    noisy = [teacher.dependencies(EXAMPLE, random.Random(seed)) for seed in range(20)]
    assert {sample.tokens for sample in noisy} > {clean.tokens}
    for sample in noisy:
        assert [choice.shares for choice in sample.choices] == [c.shares for c in clean.choices]
    # No mistake is impossible: a part depends on earlier ones only.
    assert all(max(sample.tokens) < 1_000_000 for sample in noisy)


@pytest.mark.parametrize(("plan", "shares"), [(PLAN, (0.0, 1.0)), ((), (1.0, 0.0))])
def test_the_split_is_decided_at_the_first_token(
    plan: tuple[Node, ...],
    shares: tuple[float, ...],
    teacher: Teacher,
    tokenizer: Tokenizer,
) -> None:
    kind = Kind.COMPARE if plan else Kind.STORY
    (choice,) = teacher.split(Example("Solar or wind?", kind, plan)).choices
    assert choice.shares == shares
    assert choice.candidates[0] == tokenizer.text(ONE)[0]


def test_parts_follow_the_texts_that_they_need(teacher: Teacher, tokenizer: Tokenizer) -> None:
    first, second, third, fourth = teacher.parts(EXAMPLE)
    for sample, text in zip((first, second, third, fourth), TEXTS, strict=True):
        assert tokenizer.decode(sample.tokens[-sample.written : -1]) == text
    read = tokenizer.decode(third.tokens[: -third.written])
    assert TEXTS[0] in read
    assert TEXTS[1] in read
    assert TEXTS[0] not in tokenizer.decode(second.tokens)
    # A part continues the conversation of what it needs.
    assert fourth.tokens[: len(third.tokens)] == third.tokens

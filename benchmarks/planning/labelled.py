"""Tasks with parts whose dependencies people wrote."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from pydantic import BaseModel, model_validator

from benchmarks.answering.questions import Question
from benchmarks.common.rows import InputError, read_rows
from plato.errors import InvalidPlanError
from plato.runs import Node, PlanGraph

CALIBRATION, HELD_OUT = "calibration", "held_out"
SIDES = (CALIBRATION, HELD_OUT)
HELD_OUT_OF = 5
"""One task of so many is held out; the adapter of the default model was tuned on the others."""


@dataclass(frozen=True, slots=True)
class LabelledPlan:
    """One task."""

    task: str
    """Such as "How to create a video game"; several plans may have the same."""
    kind: str
    """`independent`, `mixed` or `chain`."""
    nodes: tuple[Node, ...]

    @property
    def side(self) -> str:
        """The side of the data that it belongs to, by its task."""
        digest = blake2b(_name(self.task).encode(), digest_size=1).digest()
        return SIDES[digest[0] % HELD_OUT_OF == 0]

    @property
    def question(self) -> Question:
        """Its task as a question."""
        return Question(self.task, self.kind, f"{self.task.strip().rstrip('.?')}?")


class _Part(BaseModel):
    title: str
    dependencies: tuple[int, ...] = ()


class _Line(BaseModel):
    task: str
    kind: str
    parts: tuple[_Part, ...]

    @model_validator(mode="after")
    def _is_a_plan(self) -> _Line:
        if not self.parts:
            raise ValueError("the task has no parts")
        try:
            PlanGraph(self.nodes)
        except InvalidPlanError as error:
            raise ValueError(error.message) from error
        return self

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(
            Node(number, part.title, tuple(sorted(part.dependencies)))
            for number, part in enumerate(self.parts, start=1)
        )


def read_plans(path: Path) -> list[LabelledPlan]:
    """Plans in JSON lines with `task`, `kind`, and `parts` with `title` and `dependencies`.

    Raises `InputError`.
    """
    plans = [LabelledPlan(line.task, line.kind, line.nodes) for line in read_rows(path, _Line)]
    if not plans:
        raise InputError(f"{path} has no tasks")
    return plans


def sample(plans: Sequence[LabelledPlan], tasks: int | None, seed: int) -> list[LabelledPlan]:
    """All plans of `tasks` tasks drawn at random, in their order; of all tasks without a number."""
    names = sorted({_name(plan.task) for plan in plans})
    if tasks is None or tasks >= len(names):
        return list(plans)
    drawn = set(random.Random(seed).sample(names, tasks))
    return [plan for plan in plans if _name(plan.task) in drawn]


def questions_of(plans: Iterable[LabelledPlan]) -> list[Question]:
    """Every task once, as a question."""
    return list({_name(plan.task): plan.question for plan in plans}.values())


def _name(task: str) -> str:
    return " ".join(task.casefold().split())

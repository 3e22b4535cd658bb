"""Questions from files, and people's labels of which are fit for splitting."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from pydantic import AliasChoices, BaseModel, Field, model_validator

from benchmarks.common.rows import InputError, read_rows, read_text
from benchmarks.common.workload import FixedGraph
from plato.runs import Node


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; with parts, their lengths are exact, so that every way does equal work."""

    name: str
    kind: str
    text: str
    parts: tuple[Node, ...] = ()

    @classmethod
    def of(cls, graph: FixedGraph, scale: float = 1.0) -> Question:
        """A question of the fixed workload, its lengths times `scale`."""
        return cls(graph.name, graph.kind, graph.question, graph.scaled(scale))

    @property
    def tokens(self) -> int:
        """Tokens of the answer, where lengths are exact."""
        return sum(part.max_tokens or 0 for part in self.parts)


WARM_UP = Question("warm-up", "", "What is a lighthouse?")


class _Line(BaseModel):
    """A line of a file of questions; of several turns only the first is asked."""

    id: str | int | None = Field(None, validation_alias=AliasChoices("id", "question_id"))
    category: str = ""
    question: str | None = Field(None, validation_alias=AliasChoices("question", "text"))
    turns: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _asks(self) -> _Line:
        if self.question is None and not self.turns:
            raise ValueError("a question needs 'question', 'text' or 'turns'")
        return self

    @property
    def text(self) -> str:
        return self.turns[0] if self.question is None else self.question


def read_questions(path: Path) -> list[Question]:
    """Questions in JSON lines with `question`, `text` or FastChat's `turns`, and `category`.

    Their names are `id` or `question_id`, else the number of the line. Raises `InputError`.
    """
    found: dict[str, Question] = {}
    for number, line in enumerate(read_rows(path, _Line), start=1):
        name = str(number if line.id is None else line.id)
        if name in found:
            raise InputError(f"{path}: two questions have the id {name}; number them")
        found[name] = Question(name, line.category, line.text)
    return list(found.values())


def read_labels(path: Path) -> dict[str, bool]:
    """Whether people found a question, by its text, fit for parallel points.

    The format of Skeleton-of-Thought: `label;request` with 1 for fit. Raises `InputError`.
    """
    rows = list(csv.DictReader(read_text(path).splitlines(keepends=True), delimiter=";"))
    if not rows or not {"label", "request"} <= rows[0].keys():
        raise InputError(f"{path} has no labels; its first line must be 'label;request'")
    return {row["request"]: row["label"] == "1" for row in rows}


def label_of(question: Question, labels: dict[str, bool]) -> bool:
    """The label of one question. Raises `InputError` if it has none."""
    if question.text not in labels:
        raise InputError(f"question {question.name} has no label; add a line for it")
    return labels[question.text]

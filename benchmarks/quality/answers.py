"""Answers to the same questions in several modes, kept as JSON lines for all other steps."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.answering.asking import Answered, Asker, Way
from benchmarks.answering.questions import WARM_UP, Question
from benchmarks.common.rows import InputError
from plato.errors import PlatoError
from plato.runs import Mode, NodeOutput
from plato.runs.node_status import NodeStatus

WARM_UP_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an answer; an answer that is not split has one, without a title."""

    title: str
    dependencies: tuple[int, ...]
    tokens: int
    finish: str | None
    """`stop` if it ended by itself, `length` or `cancelled` if not."""
    text: str
    """As decoded, without heading; where `max_tokens` cuts an answer, more than is visible."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer."""

    id: str
    """Of the question."""
    category: str
    question: str
    model: str
    mode: str
    """The mode that was asked for."""
    text: str
    tokens: int
    """Of `text`, by the tokenizer of the model that wrote it."""
    latency_s: float
    parts: tuple[Part, ...]
    reason: str | None = None
    """Why the mode is not the one asked for, or how `auto` decided."""
    sampling: dict[str, Any] | None = None
    """The sampling parameters that were used, where the response has them."""

    @property
    def split(self) -> bool:
        """Whether it has several parts."""
        return len(self.parts) > 1

    @classmethod
    def of(cls, answered: Answered, model: str) -> Answer:
        """What an asker received of a model."""
        question, info = answered.question, answered.info
        return cls(
            id=question.name,
            category=question.kind,
            question=question.text,
            model=model,
            mode=answered.way,
            text=answered.text,
            tokens=answered.visible_tokens,
            latency_s=answered.latency_s,
            parts=_parts(answered),
            reason=info.get("reason"),
            sampling=info.get("sampling"),
        )


def _parts(answered: Answered) -> tuple[Part, ...]:
    nodes = answered.info["graph"]["nodes"] if answered.info else []
    if len(nodes) < 2:
        finish = nodes[0]["finish"] if nodes else answered.finish
        return (Part("", (), answered.visible_tokens, finish, answered.text),)
    statuses = {node["number"]: NodeStatus(node["number"]) for node in nodes}
    for event in answered.events:
        if isinstance(event, NodeOutput) and event.number in statuses:
            statuses[event.number].take(event)
    return tuple(
        Part(
            node["title"],
            tuple(node["dependencies"]),
            node["tokens"],
            node["finish"],
            statuses[node["number"]].text,
        )
        for node in nodes
    )


def way_of(mode: str, *, max_tokens: int | None = None, headings: bool = False) -> Way:
    """A mode with the model's own plan; natural lengths without `max_tokens`."""
    # Events have the text of every part.
    fields: dict[str, Any] = {"stream": True, "plato": {"events": True, "headings": headings}}
    if max_tokens is not None:
        fields["max_tokens"] = max_tokens
    return Way(mode, Mode(mode), fields=fields)


async def ask_all(
    asker: Asker, model: str, questions: Sequence[Question], ways: Sequence[Way]
) -> AsyncGenerator[Answer]:
    """Every question in every way, one at a time, after one to warm up.

    The way that comes first changes from question to question, so that no way has the quieter
    machine. An answer that fails is told on standard error and left out.
    """
    for way in ways:
        await asker.ask(WARM_UP, way_of(way.name, max_tokens=WARM_UP_TOKENS))
    for index, question in enumerate(questions):
        first = index % len(ways)
        for way in [*ways[first:], *ways[:first]]:
            progress = f"{index + 1}/{len(questions)} {question.name} {way.name}"
            try:
                answered = await asker.ask(question, way)
            except (PlatoError, RuntimeError, httpx.HTTPError) as error:
                sys.stderr.write(f"{progress} failed: {error}\n")
                continue
            if answered.finish is None:
                sys.stderr.write(f"{progress} failed: the stream ended before the answer\n")
                continue
            sys.stderr.write(f"{progress}: {answered.latency_s:.1f} s\n")
            yield Answer.of(answered, model)


def by_mode(answers: Iterable[Answer]) -> dict[str, dict[str, Answer]]:
    """Answers by mode and question. Raises `InputError` if one is there twice."""
    found: dict[str, dict[str, Answer]] = {}
    for answer in answers:
        of_mode = found.setdefault(answer.mode, {})
        if answer.id in of_mode:
            raise InputError(f"question {answer.id} is answered twice in mode {answer.mode}")
        of_mode[answer.id] = answer
    return found

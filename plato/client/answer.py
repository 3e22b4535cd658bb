"""What is asked and what is answered, wherever the model runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from html import escape
from typing import Any, Self

from plato.api.answers.run_info import Graph, PlatoInfo, Timings, Usage
from plato.api.questions.options import PlatoOptions
from plato.display import graph_mermaid, graph_svg
from plato.errors import InvalidRequestError
from plato.runs import AnswerFinish, Mode, RunEvent

Question = str | Sequence[Mapping[str, Any]]
"""A question, or a conversation as chat completions have it: `{"role": ..., "content": ...}`."""
_OPTIONS = frozenset(PlatoOptions.model_fields)


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    text: str
    finish_reason: AnswerFinish
    """`length` if a limit of the caller cut it; otherwise `stop`."""
    info: PlatoInfo
    """How it came about: the mode and its reason, the plan, sampling, the run's id."""
    usage: Usage
    """What a caller is billed; `info.usage` has all tokens that were computed for it."""

    def __str__(self) -> str:
        return self.text

    @property
    def graph(self) -> Graph:
        """The parts with their dependencies, states and times."""
        return self.info.graph

    @property
    def timings(self) -> Timings:
        """Of the whole answer, in seconds."""
        return self.info.timings

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        return graph_mermaid(self.graph.nodes)

    def _repr_svg_(self) -> str:
        """The graph, for notebooks."""
        return graph_svg(self.graph.nodes)

    def _repr_html_(self) -> str:
        """The graph if there is a plan, and the text, for notebooks."""
        graph = "" if self.info.mode is Mode.SEQUENTIAL else self._repr_svg_()
        text = f'<div style="white-space: pre-wrap">{escape(self.text)}</div>'
        return f"<div>{graph}{text}</div>"


@dataclass(frozen=True, slots=True)
class Update:
    """An increment of an answer."""

    text: str = ""
    """Text that continues the answer."""
    event: RunEvent | None = None
    """An event of the run other than its end, which `answer` or an error reports."""
    answer: Answer | None = None
    """The complete answer; only in the last update."""


class Asker(ABC):
    """Answers questions; an asynchronous context manager."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @abstractmethod
    def stream(self, question: Question, **options: Any) -> AsyncGenerator[Update]:
        """Answer a question while it is written; closing the generator cancels the answer.

        `options` are fields of the `plato` object (`mode`, `plan`, `headings`, ...) and of a chat
        completion request (`max_tokens`, `temperature`, `seed`, ...). Raises a `PlatoError` if they
        are invalid or the answer fails.
        """

    async def ask(self, question: Question, **options: Any) -> Answer:
        """Answer a question. See `stream`."""
        async with aclosing(self.stream(question, **options)) as updates:
            async for update in updates:
                if update.answer is not None:
                    return update.answer
        raise AssertionError("the last update has the answer")

    @abstractmethod
    async def close(self) -> None:
        """Give up what was opened for it. Idempotent."""


def request_body(question: Question, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a chat completion request; without a model, the server's only one answers.

    Raises `InvalidRequestError` if the question is empty.
    """
    if isinstance(question, str) and not question.strip():
        raise InvalidRequestError("the question is empty; write one", param="messages")
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    fields = {name: value for name, value in options.items() if name not in _OPTIONS}
    plato = {name: value for name, value in options.items() if name in _OPTIONS}
    return {"messages": list(messages), **fields, "plato": {**fields.get("plato", {}), **plato}}


def stream_body(question: Question, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body that has the answer streamed, with all events and the usage."""
    body = request_body(question, options)
    body["plato"]["events"] = True
    return {**body, "stream": True, "stream_options": {"include_usage": True}}

"""What the answers of both endpoints for completions share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pydantic import BaseModel

from plato.api.answers import sse
from plato.api.answers.run_info import PlatoEvent, PlatoInfo, Usage
from plato.api.errors import error_text
from plato.errors import PlatoError
from plato.runs import Answer, RunRequest


def _now() -> int:
    return int(time.time())


@dataclass(slots=True)
class CompletionFormat:
    """Builds the bodies of one response, as JSON text: the base of two `AnswerFormat`s.

    A stream ends with `closing`, `usage` if requested, and `sse.DONE`.
    """

    prefix: ClassVar[str]
    """Of the ids of completions, before that of the run."""
    piece: ClassVar[type[BaseModel]]
    """The model of what is streamed."""

    run: str
    model: str
    include_usage: bool = False
    """Whether pieces contain `"usage": null`, because a piece with the usage follows."""
    created: int = field(default_factory=_now)
    """Unix time in seconds."""
    metadata: dict[str, str] | None = None
    """The caller's own."""

    @classmethod
    def of(cls, asked: RunRequest, model: str, **fields: Any) -> Self:
        """For the run of `asked`, by the model of this name; `fields` are others of the class."""
        created, metadata = int(asked.created_unix_s), dict(asked.metadata) or None
        return cls(asked.run_id, model, created=created, metadata=metadata, **fields)

    @property
    def id(self) -> str:
        """The id of the completion."""
        return f"{self.prefix}{self.run}"

    def closing(self, answer: Answer) -> str:
        """The last piece with a choice: why the answer ended, and the run."""
        raise NotImplementedError

    def end(self, answer: Answer) -> Iterator[bytes]:
        """See `AnswerFormat`."""
        yield sse.event(self.closing(answer))
        if self.include_usage:
            yield sse.event(self.usage(answer))
        yield sse.DONE

    def fail(self, error: PlatoError) -> bytes:
        """See `StreamFormat`."""
        return sse.event(error_text(error))

    def usage(self, answer: Answer) -> str:
        """The piece after `closing`, for clients that set `include_usage`."""
        return self._dump({"plato"}, choices=(), usage=Usage.of(answer.report))

    def _piece(self, choice: BaseModel, plato: PlatoInfo | PlatoEvent | None = None) -> str:
        absent = set() if self.include_usage else {"usage"}
        if plato is None:
            absent.add("plato")
        return self._dump(absent, choices=(choice,), plato=plato)

    def _dump(self, absent: set[str], **fields: Any) -> str:
        piece = self.piece(id=self.id, created=self.created, model=self.model, **fields)
        return piece.model_dump_json(exclude=absent)

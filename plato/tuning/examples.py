"""Examples of good answers, to tune and to measure planners with.

JSON lines with `question`, `kind` and, unless the kind is one that is not split, `parts`: `title`,
`dependencies` (numbers of earlier parts), `length` (`Length`) and `text`, or `context`: a text that
is not learned but seen by other parts. What is missing is not learned: a part without a `text`; the
decision to split without a `kind`; and titles, which are learned from examples with any text or
context, because only those were written for a model to imitate. A `question` alone is one whose
answers are to stay as they are; so are those of all others, as far as they are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plato.errors import InvalidPlanError, InvalidRequestError, file_problem
from plato.planning.given import validate_plan
from plato.runs import Length, Node
from plato.settings import MAX_NODES
from plato.validation import first_problem

BUNDLED = files("plato.tuning") / "data" / "examples.jsonl"
"""Written for this project; no question is from a public benchmark."""


class Kind(StrEnum):
    """What a question asks for."""

    EXPLAIN = "explain"
    COMPARE = "compare"
    HOW_TO = "how_to"
    PLAN = "plan"
    ADVISE = "advise"
    PROS_CONS = "pros_cons"
    STORY = "story"
    LETTER = "letter"
    CODE = "code"
    SUM = "sum"
    FACT = "fact"

    @property
    def has_parts(self) -> bool:
        """Whether an answer of this kind has parts."""
        return self not in _WHOLE


_WHOLE = frozenset({Kind.STORY, Kind.LETTER, Kind.CODE, Kind.SUM, Kind.FACT})


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its plan."""

    question: str
    kind: Kind | None
    """None if it is not known whether the answer should be split."""
    plan: tuple[Node, ...] = ()
    """Empty if the answer is not split."""
    texts: tuple[str | None, ...] = ()
    """Of every part; empty if there is none."""
    contexts: frozenset[int] = frozenset()
    """Numbers of the parts whose texts are not learned."""

    @property
    def is_ordinary(self) -> bool:
        """Whether it teaches nothing but what is to stay as it is."""
        return self.kind is None and not self.plan


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Part(_Fields):
    title: str
    dependencies: tuple[int, ...] = ()
    length: Length | None = None
    text: str | None = Field(default=None, min_length=1)
    context: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _has_one_text(self) -> _Part:
        if self.text is not None and self.context is not None:
            raise ValueError("a part has a text or a context, not both")
        return self


class _Line(_Fields):
    question: str = Field(min_length=1)
    kind: Kind | None = None
    parts: tuple[_Part, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> _Line:
        if self.kind is not None and self.kind.has_parts != bool(self.parts):
            must = "must have parts" if self.kind.has_parts else "must not have parts"
            raise ValueError(f"an answer of kind {self.kind} {must}")
        return self

    @property
    def example(self) -> Example:
        nodes = tuple(
            Node(number, part.title, tuple(sorted(part.dependencies)), length=part.length)
            for number, part in enumerate(self.parts, start=1)
        )
        plan = validate_plan(nodes, MAX_NODES) if nodes else ()
        texts = tuple(part.text or part.context for part in self.parts)
        contexts = frozenset(n for n, part in enumerate(self.parts, start=1) if not part.text)
        return Example(self.question, self.kind, plan, texts if any(texts) else (), contexts)


def read_examples(source: Traversable | Path = BUNDLED) -> tuple[Example, ...]:
    """All examples of a file.

    Raises `InvalidRequestError` with the number of the first line that is not an example.
    """
    try:
        text = source.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"{source} cannot be read ({file_problem(error)})", param="data"
        ) from error
    return tuple(_examples(text, source))


def _examples(text: str, source: Traversable | Path) -> Iterator[Example]:
    # Not `splitlines`: a JSON text may contain other line separators.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        try:
            yield _Line.model_validate_json(line).example
        except InvalidPlanError as error:
            raise InvalidRequestError(
                f"{source}, line {number}: {error.message}", param="data"
            ) from error
        except ValidationError as error:
            raise InvalidRequestError(
                f"{source}, line {number} is not an example ({first_problem(error)}); an example "
                "has a `question`, a `kind`, and `parts` with `title`, `dependencies`, `length` "
                "and `text`",
                param="data",
            ) from error

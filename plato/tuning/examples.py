"""Examples of good answers, to tune and to measure planners with.

JSON lines with `question`, `kind` and, unless the kind is one that is not split, `parts`: `title`,
`dependencies` (numbers of earlier parts), `length` (`Length`) and, in some, `text`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from plato.errors import InvalidPlanError, InvalidRequestError
from plato.planning.given import validate_plan
from plato.runs import Length, Node
from plato.settings import MAX_NODES

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
    kind: Kind
    plan: tuple[Node, ...] = ()
    """Empty if the answer is not split."""
    texts: tuple[str, ...] = ()
    """Of every part, or none."""


def read_examples(source: Traversable | Path = BUNDLED) -> tuple[Example, ...]:
    """All examples of a file.

    Raises `InvalidRequestError` with the number of the first line that is not an example.
    """
    return tuple(_examples(source.read_text("utf-8")))


def _examples(text: str) -> Iterator[Example]:
    # Not `splitlines`: a JSON text may contain other line separators.
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        try:
            yield _example(json.loads(line))
        except InvalidPlanError as error:
            raise InvalidRequestError(f"line {number}: {error.message}", param="data") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequestError(
                f"line {number} is no example ({error!r}); it needs `question`, `kind` and "
                "`parts` with `title`, `dependencies` and `length`",
                param="data",
            ) from error


def _example(fields: dict[str, object]) -> Example:
    question, kind, parts = fields["question"], Kind(str(fields["kind"])), fields.get("parts", [])
    if not isinstance(question, str) or not isinstance(parts, list):
        raise TypeError("`question` is a text and `parts` a list")
    if kind.has_parts == (not parts):
        raise ValueError(f"an answer of kind {kind} {'has' if kind.has_parts else 'has no'} parts")
    nodes = (
        Node(number, part["title"], tuple(part["dependencies"]), length=Length(part["length"]))
        for number, part in enumerate(parts, start=1)
    )
    if not all(isinstance(part["title"], str) for part in parts):
        raise TypeError("a `title` is a text")
    texts = tuple(part["text"] for part in parts if "text" in part)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a `text` is a text")
    if texts and len(texts) < len(parts):
        raise ValueError("all parts have a `text`, or none")
    return Example(question, kind, validate_plan(nodes, MAX_NODES) if parts else (), texts)

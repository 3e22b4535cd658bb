"""Reading plans while they are decoded, in each of the forms in which models write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

from plato.errors import InvalidPlanError
from plato.planning.grammar import outline_title
from plato.planning.parser import END, ONE, add_line
from plato.runs import PlanGraph

_LINE = re.compile(r"[0-9]+ *\|")


@dataclass(frozen=True, slots=True)
class Draft:
    """A part as the model has written it."""

    title: str
    needs: tuple[int, ...] | None = None
    """Numbers of the earlier parts that it needs; `None`: the plan does not say."""


class EndOfPlan(Exception):  # noqa: N818 - an end is no error
    """Nothing that follows is read; `reason` says why, unless the plan is complete."""

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason


class PlanReader(Protocol):
    """Reads one plan."""

    def feed(self, text: str, *, ended: bool) -> Iterator[Draft]:
        """The parts that `text` completes; `ended`: it is the last of the plan.

        Raises `EndOfPlan`.
        """
        ...


class OutlineReader:
    """Of outlines as `plato.planning.grammar` has them, whose last line ends with a newline."""

    def __init__(self) -> None:
        self._rest = ""
        """The line that is not complete yet; the token budget bounds it."""
        self._count = 0

    def feed(self, text: str, *, ended: bool) -> Iterator[Draft]:
        """See `PlanReader.feed`."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._count += 1
            title = outline_title(line)
            if title is None:
                raise EndOfPlan(f"line {self._count} of the plan, {line[:60]!r}, is no title")
            yield Draft(title)


class LinesReader:
    """Of the plan language, written by models that nothing keeps from writing something else."""

    def __init__(self, parts: int) -> None:
        """Reads up to so many `parts`."""
        self._parts = parts
        self._rest = ""
        """The line that is not complete yet; the token budget bounds it."""
        self._graph = PlanGraph()

    def feed(self, text: str, *, ended: bool) -> Iterator[Draft]:
        """See `PlanReader.feed`."""
        *lines, self._rest = (self._rest + text + ("\n" if ended else "")).split("\n")
        for line in map(str.strip, lines):
            if line in (END, ONE) or len(self._graph) == self._parts:
                raise EndOfPlan
            # Models say what they are going to do, and write blank lines.
            if not line or (not len(self._graph) and not _LINE.match(line)):
                continue
            try:
                add_line(self._graph, line, self._parts)
            except InvalidPlanError as error:
                raise EndOfPlan(f"the plan ended before {line[:60]!r}: {error.message}") from error
            node = self._graph[len(self._graph)]
            yield Draft(node.title, node.dependencies)


class JsonReader:
    """Of JSON under `json_plan`."""

    def __init__(self) -> None:
        self._rest = ""
        """What is not read yet; the token budget bounds it."""
        self._count = -1
        """Parts so far; -1: the list has not begun."""

    def feed(self, text: str, *, ended: bool) -> Iterator[Draft]:
        """See `PlanReader.feed`."""
        self._rest += text
        if self._count < 0:
            _, begun, rest = self._rest.partition("[")
            if not begun:
                return
            self._rest, self._count = rest, 0
        while True:
            self._rest = self._rest.lstrip(", \t\r\n")
            if self._rest.startswith("]"):
                raise EndOfPlan
            try:
                part, end = json.JSONDecoder().raw_decode(self._rest)
            except ValueError:
                return  # It is not complete.
            self._rest = self._rest[end:]
            self._count += 1
            yield self._draft(part)

    def _draft(self, part: Any) -> Draft:
        try:
            title, needs = str(part["title"]).strip(), {int(number) for number in part["needs"]}
        except (KeyError, TypeError, ValueError) as error:
            raise EndOfPlan(f"part {self._count} of the plan is not as asked for") from error
        earlier = range(1, self._count)
        return Draft(title, tuple(number for number in earlier if number in needs))


class PlanForm(Enum):
    """How a plan is written: the first form that the engine does not refuse."""

    OUTLINE = auto()
    """Titles under the grammar of outlines; dependencies are decided apart."""
    JSON = auto()
    """Titles and dependencies under a JSON schema."""
    LINES = auto()
    """Lines of the plan language, as the model writes them."""

    def reader(self, parts: int) -> PlanReader:
        """For one plan of up to so many parts."""
        match self:
            case PlanForm.OUTLINE:
                return OutlineReader()
            case PlanForm.JSON:
                return JsonReader()
            case PlanForm.LINES:
                return LinesReader(parts)


def json_plan(parts: int) -> str:
    """The JSON schema of plans with up to so many parts."""
    part = _object(title={"type": "string"}, needs={"type": "array", "items": {"type": "integer"}})
    listed = {"type": "array", "items": part, "minItems": 2, "maxItems": parts}
    return json.dumps(_object(parts=listed))


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }

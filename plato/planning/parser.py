"""Incremental parser of the plan language."""

from __future__ import annotations

import re
from collections.abc import Sequence

from plato.errors import InvalidPlanError
from plato.planning.grammar import DEPENDENCIES_FIRST, END, ONE, TITLE_FIRST, Field, Fields
from plato.runs import Length, Node, PlanGraph
from plato.settings import MAX_NODES, MAX_TITLE_CHARS

_NUMBER = re.compile(r"[1-9][0-9]{0,2}")
_DEPENDENCIES = re.compile(r"-|[1-9][0-9]{0,2}(?:,[1-9][0-9]{0,2})*")
_EXAMPLES = (
    "write for example `3 | Conclusion | 1,2`, or `1 | Title | -` for a part without dependencies"
)
_UNCLEAR = (
    ". Both of its fields look like dependencies, so the line was read as `number | title | "
    "dependencies`"
)
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_MAX_LINE_CHARS = MAX_TITLE_CHARS + 4 * MAX_NODES + 24
"""Bounds the buffer of the parser; the longest title fits with any dependencies."""


class PlanParser:
    """Turns pieces of text into nodes, each as soon as its line is complete.

    Pieces may be split anywhere. The parser is as strict as the grammar, for texts that were not
    decoded under it; after an error every call raises the same error.

    Without `fields`, every line may be `number | title | dependencies` or `number | dependencies |
    title`, with a length (`Length`) as a fourth field or without one. The second field of a line is
    its dependencies if it looks like them (`-` or numbers) and the third does not, so the line `2 |
    1 | 1` is about a title "1".
    """

    def __init__(self, *, max_nodes: int = MAX_NODES, fields: Fields | None = None) -> None:
        """`fields` are those of every line, if they are known: of a plan that is decoded."""
        self.one = False
        """Whether the text was `[ONE]`."""
        self.ended = False
        """Whether `[END]` or `[ONE]` was read; only white space may follow."""
        self._max_nodes = max_nodes
        self._fields = fields
        self._graph = PlanGraph()
        self._buffer = ""
        self._line = 1
        self._error: InvalidPlanError | None = None

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes so far, including those before an error."""
        return tuple(self._graph)

    def feed(self, text: str) -> list[Node]:
        """Add `text`; returns the nodes whose lines it completed.

        Raises `InvalidPlanError` with the number of the invalid line; the nodes of the lines before
        it are in `nodes`.
        """
        if self._error is not None:
            raise self._error
        known = len(self._graph)
        self._buffer += text
        try:
            self._read()
        except InvalidPlanError as error:
            self._error, self._buffer = error, ""
            raise
        return list(self._graph)[known:]

    def finish(self) -> None:
        """End of the text. Raises `InvalidPlanError` unless it was a complete plan or `[ONE]`."""
        if self._error is not None:
            raise self._error
        if not self.ended:
            raise self._wrong(f"the plan is incomplete; end it with the line {END}")

    def _read(self) -> None:
        """Consume the complete lines of the buffer."""
        while not self.ended:
            line, newline, rest = self._buffer.partition("\n")
            if line.startswith((END, ONE)):
                # Needs no newline: constrained decoding never writes one here.
                self._mark(line[: len(END)])
                self._buffer = self._buffer[len(END) :]
                break
            if len(line) > _MAX_LINE_CHARS:
                raise self._wrong(
                    f"the line is too long; a title has up to {MAX_TITLE_CHARS} characters"
                )
            if not newline:
                return
            self._node(line)
            self._buffer = rest
            self._line += 1
        if self._buffer.strip():
            raise self._wrong("unexpected text after the end of the plan; remove it")
        self._buffer = ""

    def _mark(self, marker: str) -> None:
        self.one = marker == ONE
        self.ended = True
        if self.one and len(self._graph):
            raise self._wrong(f"{ONE} is only valid instead of a plan; end a plan with {END}")
        if not self.one and not len(self._graph):
            raise self._wrong("the plan has no parts; add a line like `1 | Title | -`")

    def _node(self, line: str) -> None:
        number, *values = line.split(" | ")
        fields = self._fields or _fields_of(values)
        if len(values) != len(fields) or not _NUMBER.fullmatch(number):
            raise self._malformed(line, fields)
        given = dict(zip(fields, values, strict=True))
        needs, title = given.get(Field.DEPENDENCIES, "-"), given[Field.TITLE]
        if not _DEPENDENCIES.fullmatch(needs):
            raise self._malformed(line, fields)
        if len(self._graph) == self._max_nodes:
            raise self._wrong(f"the plan has more than {self._max_nodes} parts; merge some")
        problem = title_problem(title, MAX_TITLE_CHARS)
        if problem is not None:
            raise self._wrong(problem)
        if title != title.strip():
            raise self._wrong("the title begins or ends with a space; remove it")
        dependencies = () if needs == "-" else tuple(int(part) for part in needs.split(","))
        try:
            length = Length(given[Field.LENGTH]) if Field.LENGTH in given else None
            self._graph.add(Node(int(number), title, dependencies, length=length))
        except InvalidPlanError as error:
            unclear = self._fields is None and _DEPENDENCIES.fullmatch(title)
            raise self._wrong(error.message + (_UNCLEAR if unclear else "")) from error
        except ValueError:
            raise self._wrong(
                f"the last field is {given[Field.LENGTH][:60]!r}; a fourth field is the length of "
                f"the part ({', '.join(Length)}), and a title has no `|`"
            ) from None
        if dependencies != tuple(sorted(dependencies)):
            raise self._wrong("list the dependencies in ascending order")

    def _malformed(self, line: str, fields: Fields) -> InvalidPlanError:
        form = " | ".join(("number", *fields)) if self._fields else "number | title | dependencies"
        hint = "" if self._fields else f"; {_EXAMPLES}"
        return self._wrong(f"{line[:60]!r} is not `{form}`{hint}")

    def _wrong(self, problem: str) -> InvalidPlanError:
        return InvalidPlanError(f"plan, line {self._line}: {problem}", param="plato.plan")


def _fields_of(values: Sequence[str]) -> Fields:
    """The fields of a line that may have either order; see `PlanParser`."""
    looks = [_DEPENDENCIES.fullmatch(value) is not None for value in values[:2]]
    order = DEPENDENCIES_FIRST if looks == [True, False] else TITLE_FIRST
    return (*order, Field.LENGTH) if len(values) > len(order) else order


def title_problem(title: str, max_chars: int) -> str | None:
    """What is wrong with a title, or None. Newlines, `|` and the markers are reserved."""
    if not title.strip():
        return "the title is empty; describe the part"
    if len(title) > max_chars:
        return f"the title has {len(title)} characters; the maximum is {max_chars}"
    if "|" in title or _BREAKS.search(title):
        return "the title contains `|`, a newline or a control character; remove it"
    if END in title or ONE in title:
        return f"the title contains {END} or {ONE}; these must be on lines of their own"
    return None

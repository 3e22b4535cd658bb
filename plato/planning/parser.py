"""The plan language, in which callers and people write plans.

One line per part, `number | title | dependencies`, perhaps with a length class, and `[END]`:

    1 | Cost of solar power | -
    2 | Cost of wind power | - | short
    3 | The better choice | 1,2 | long
    [END]

The order `number | dependencies | title` is read, too.
"""

from __future__ import annotations

import re

from plato.errors import InvalidPlanError
from plato.runs import Length, Node, PlanGraph
from plato.settings import MAX_NODES, MAX_TITLE_CHARS

END = "[END]"
"""The last line of a plan."""
ONE = "[ONE]"
"""Written instead of a plan: do not split the answer."""

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

    Pieces may be split anywhere. After an error every call raises the same error. The second field
    of a line is its dependencies if it looks like them (`-` or numbers) and the third does not, so
    the line `2 | 1 | 1` is about a title "1". A fourth field is the length (`Length`).
    """

    def __init__(self, *, max_nodes: int = MAX_NODES) -> None:
        self.one = False
        """Whether the text was `[ONE]`."""
        self.ended = False
        """Whether `[END]` or `[ONE]` was read; only white space may follow."""
        self._max_nodes = max_nodes
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
                # Needs no newline.
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
        if len(values) not in (2, 3) or not _NUMBER.fullmatch(number):
            raise self._malformed(line)
        title, needs, *last = values
        looks = [_DEPENDENCIES.fullmatch(value) is not None for value in (title, needs)]
        if looks == [True, False]:
            title, needs = needs, title
        elif not looks[1]:
            raise self._malformed(line)
        if len(self._graph) == self._max_nodes:
            raise self._wrong(f"the plan has more than {self._max_nodes} parts; merge some")
        problem = title_problem(title, MAX_TITLE_CHARS)
        if problem is not None:
            raise self._wrong(problem)
        if title != title.strip():
            raise self._wrong("the title begins or ends with a space; remove it")
        dependencies = () if needs == "-" else tuple(int(part) for part in needs.split(","))
        try:
            length = Length(last[0]) if last else None
            self._graph.add(Node(int(number), title, dependencies, length=length))
        except InvalidPlanError as error:
            raise self._wrong(error.message + (_UNCLEAR if all(looks) else "")) from error
        except ValueError:
            raise self._wrong(
                f"the last field is {last[0][:60]!r}; a fourth field is the length of "
                f"the part ({', '.join(Length)}), and a title has no `|`"
            ) from None
        if dependencies != tuple(sorted(dependencies)):
            raise self._wrong("list the dependencies in ascending order")

    def _malformed(self, line: str) -> InvalidPlanError:
        form = "number | title | dependencies"
        return self._wrong(f"{line[:60]!r} is not `{form}`; {_EXAMPLES}")

    def _wrong(self, problem: str) -> InvalidPlanError:
        return InvalidPlanError(f"plan, line {self._line}: {problem}", param="plato.plan")


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

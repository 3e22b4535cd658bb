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
_MAX_TEXT_CHARS = MAX_NODES * (MAX_TITLE_CHARS + 4 * MAX_NODES + 24)
"""Enough for the longest titles with any dependencies."""


def parse_plan(text: str, max_nodes: int) -> tuple[Node, ...]:
    """Parse a complete plan, or `[ONE]`, which has no nodes. Only white space may follow its end.

    The second field of a line is its dependencies if it looks like them (`-` or numbers) and the
    third does not, so the line `2 | 1 | 1` is about a title "1". A fourth field is the length
    (`Length`).

    Raises `InvalidPlanError` with the number of the invalid line.
    """
    if len(text) > _MAX_TEXT_CHARS:
        raise InvalidPlanError(
            f"the plan has {len(text)} characters; the maximum is {_MAX_TEXT_CHARS}",
            param="plato.plan",
        )
    graph = PlanGraph()
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            if line.startswith((END, ONE)):
                _check_end(line, lines[number:], len(graph))
                break
            if number == len(lines):
                raise InvalidPlanError(f"the plan is incomplete; end it with the line {END}")
            add_line(graph, line, max_nodes)
        except InvalidPlanError as error:
            raise InvalidPlanError(
                f"plan, line {number}: {error.message}", param="plato.plan"
            ) from error
    return tuple(graph)


def _check_end(line: str, rest: list[str], parts: int) -> None:
    """Check the line that ends a plan of so many parts, and the lines after it."""
    if line.startswith(ONE) and parts:
        raise InvalidPlanError(f"{ONE} is only valid instead of a plan; end a plan with {END}")
    if line.startswith(END) and not parts:
        raise InvalidPlanError("the plan has no parts; add a line like `1 | Title | -`")
    if line.rstrip() not in (END, ONE) or any(map(str.strip, rest)):
        raise InvalidPlanError("unexpected text after the end of the plan; remove it")


def add_line(graph: PlanGraph, line: str, max_nodes: int) -> None:
    """Add the node of a line. Raises `InvalidPlanError`."""
    number, *values = line.split(" | ")
    if len(values) not in (2, 3) or not _NUMBER.fullmatch(number):
        raise _malformed(line)
    title, needs, *last = values
    looks = [_DEPENDENCIES.fullmatch(value) is not None for value in (title, needs)]
    if looks == [True, False]:
        title, needs = needs, title
    elif not looks[1]:
        raise _malformed(line)
    if len(graph) == max_nodes:
        raise InvalidPlanError(f"the plan has more than {max_nodes} parts; merge some")
    problem = title_problem(title, MAX_TITLE_CHARS)
    if problem is not None:
        raise InvalidPlanError(problem)
    if title != title.strip():
        raise InvalidPlanError("the title begins or ends with a space; remove it")
    if last and last[0] not in list(Length):
        raise InvalidPlanError(
            f"the last field is {last[0][:60]!r}; a fourth field is the length of the part "
            f"({', '.join(Length)}), and a title has no `|`"
        )
    dependencies = () if needs == "-" else tuple(map(int, needs.split(",")))
    length = Length(last[0]) if last else None
    try:
        graph.add(Node(int(number), title, dependencies, length=length))
    except InvalidPlanError as error:
        raise InvalidPlanError(error.message + (_UNCLEAR if all(looks) else "")) from error
    if dependencies != tuple(sorted(dependencies)):
        raise InvalidPlanError("list the dependencies in ascending order")


def _malformed(line: str) -> InvalidPlanError:
    form = "number | title | dependencies"
    return InvalidPlanError(f"{line[:60]!r} is not `{form}`; {_EXAMPLES}")


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

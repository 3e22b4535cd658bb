"""The plan language, for constrained decoding.

One line per node, `number | title | dependencies`, and `[END]`:

    1 | Solar power: cost and output | -
    2 | Wind power: cost and output | -
    3 | Recommendation | 1,2
    [END]

The planner decodes titles only, and decides dependencies apart (`plato.planning.decision`). The
parser reads all fields in either order (`Field`), and `[ONE]`, *do not split*, instead of a plan.

The rules are unrolled line by line. Then the number of each line is known, the first line has no
dependencies, and `[END]` is impossible before the minimum and certain after the maximum number of
lines: these tokens are forced and need no decoding step. Measured on ten plans of the default model
(473 tokens, dependencies before titles): 327 are decoded, against 409 with one rule for all lines.
In the format `1|-|T` 371 of 433 are decoded, in `1 |-| T` 359 of 473: with a space before it the
separator is a separate token, and the space after it is part of the next word's token.
"""

from __future__ import annotations

from enum import StrEnum

from plato.planning.rules import (
    START,
    Literal,
    Reference,
    Rule,
    Rules,
    choice,
    lark,
    optional,
    sequence,
)
from plato.runs import Length

ONE = "[ONE]"
"""Written instead of a plan: do not split the answer."""
END = "[END]"
"""The last line of a plan."""
MIN_NODES = 3
"""Minimum number of lines of a decoded plan: small models end plans too early."""

_LINE_TOKENS = 6
"""Number, separator and newline."""


class Field(StrEnum):
    """What a line says about its node, after the number."""

    TITLE = "title"
    DEPENDENCIES = "dependencies"
    LENGTH = "length"


Fields = tuple[Field, ...]
"""The fields of a line in their order; without dependencies a line says nothing about them."""

TITLES: Fields = (Field.TITLE,)
TITLE_FIRST: Fields = (Field.TITLE, Field.DEPENDENCIES)
WITH_LENGTH: Fields = (*TITLE_FIRST, Field.LENGTH)
DEPENDENCIES_FIRST: Fields = (Field.DEPENDENCIES, Field.TITLE)


def plan_grammar(max_nodes: int, title: Rule) -> str:
    """The grammar that the built-in engine decodes titles under, in llguidance's Lark.

    It is a subset of the language that `PlanParser` reads: titles contain no brackets, so they
    cannot contain a marker. `title` is one of the rules in `titles`.
    """
    return lark(plan_rules(max_nodes, fields=TITLES, title=title))


def plan_rules(max_nodes: int, *, fields: Fields, title: Rule) -> Rules:
    """The rules of plans with up to `max_nodes` lines (at least 2), for any notation of `rules`.

    Dependencies are ascending lists of smaller numbers, exactly, in every notation. `title` is
    one of the rules in `titles`.
    """
    min_nodes = min(MIN_NODES, max_nodes)
    rules: dict[str, Rule] = {START: Reference("line1")}
    for number in range(1, max_nodes + 1):
        following: Rule = Reference(f"line{number + 1}") if number < max_nodes else Literal(END)
        if min_nodes <= number < max_nodes:
            following = choice(following, END)
        items: list[Rule | str] = [f"{number} | "]
        for field in fields:
            match field:
                case Field.TITLE:
                    # Its terminal includes what ends it: a title has spaces, so a lexer that takes
                    # the longest match would read the separator's space as part of the title.
                    items.append(Reference("TITLE"))
                case Field.DEPENDENCIES:
                    items.append(_dependencies(number, rules))
                case Field.LENGTH:
                    items.append(choice(*Length))
            if field is not Field.TITLE:
                items.append(_end(fields, field))
        rules[f"line{number}"] = sequence(*items, following)
    rules["TITLE"] = sequence(title, _end(fields, Field.TITLE))
    return rules


def _end(fields: Fields, field: Field) -> str:
    return "\n" if field is fields[-1] else " | "


def _dependencies(number: int, rules: dict[str, Rule]) -> Rule:
    return choice("-", _ascending(1, number - 1, rules)) if number > 1 else Literal("-")


def _ascending(low: int, high: int, rules: dict[str, Rule]) -> Rule:
    """Non-empty ascending lists of the numbers from `low` to `high`; adds rules for its parts.

    Such a list is one of the upper numbers, or one of the lower numbers that such a list may
    follow. Split at powers of two, so that lists share their parts, and so that expanding all
    references takes O(n^1.6) and not 2^n characters.
    """
    if low == high:
        return Literal(str(low))
    name = f"list{low}to{high}"
    if name not in rules:
        middle = low + (1 << (high - low).bit_length() - 1)
        lower, upper = _ascending(low, middle - 1, rules), _ascending(middle, high, rules)
        rules[name] = choice(sequence(lower, optional(",", upper)), upper)
    return Reference(name)


def plan_token_budget(max_nodes: int, max_title_words: int) -> int:
    """Token budget of a plan within these bounds.

    Four tokens per word: three times what English needs. Other scripts can exceed the budget with
    long titles; the plan then ends with its last complete line.
    """
    return max_nodes * (_LINE_TOKENS + 4 * max_title_words)

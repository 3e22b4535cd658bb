"""The outline that the planner decodes: the titles of the parts, as a numbered list.

    1. **Cost of solar power**:
    2. **Cost of wind power**:
    3. **The better choice**:

Instruction-tuned models write such lists by themselves, with text after each title, so even small
ones write good titles in this form without examples. (Asked for lines of the plan language with
examples of them, a model of 135M parameters writes about the examples.) The dependencies are
decided apart (`plato.planning.decision`).

The rules are unrolled line by line. Then the number of each line is known, and the list cannot end
before the minimum nor go on after the maximum number of lines: what is certain is forced and needs
no decoding step.
"""

from __future__ import annotations

import re

from plato.engine import Grammar
from plato.planning.rules import START, Reference, Rule, Rules, gbnf, lark, optional, sequence
from plato.planning.titles import SPACELESS_FACTOR, WORD_CHARS

MIN_PARTS = 2
"""Minimum number of lines."""
TITLE_END = "**:"
"""Follows a title."""

_LINE = re.compile(r"[1-9][0-9]{0,2}\. \*\*(.+)\*\*:")
_LINE_TOKENS = 8
"""Number and markup."""
_WORD_TOKENS = 4
_CHAR_TOKENS = 3
"""Of English words three times what they need; of other scripts what a tokenizer of bytes needs."""


def outline_line(number: int, title: str) -> str:
    """One line of an outline."""
    return f"{_start(number)}{title}{TITLE_END}\n"


def outline_title(line: str) -> str | None:
    """The title of a line without its newline; None if it is no line of an outline."""
    found = _LINE.fullmatch(line)
    return found and found[1]


def outline_grammar(parts: int, title: Rule) -> Grammar:
    """The grammar of outlines, for any engine; see `outline_rules`."""
    rules = outline_rules(parts, title)
    return Grammar(lark=lark(rules), gbnf=gbnf(rules))


def outline_rules(parts: int, title: Rule) -> Rules:
    """The rules of outlines with up to `parts` lines (at least 2), for any notation of `rules`.

    `title` is the rule of a title, such as `title_of_words`; its terminal includes what ends the
    line.
    """
    rules: dict[str, Rule] = {START: Reference("line1")}
    for number in range(1, parts + 1):
        items: list[Rule | str] = [_start(number), Reference("TITLE")]
        if number < parts:
            following = Reference(f"line{number + 1}")
            items.append(following if number < MIN_PARTS else optional(following))
        rules[f"line{number}"] = sequence(*items)
    rules["TITLE"] = sequence(title, f"{TITLE_END}\n")
    return rules


def outline_token_budget(parts: int, max_title_words: int) -> int:
    """Token budget of an outline within these bounds.

    A title that exceeds it ends the plan with the line before.
    """
    title = max(_WORD_TOKENS * max_title_words, _CHAR_TOKENS * SPACELESS_FACTOR * WORD_CHARS)
    return parts * (_LINE_TOKENS + title)


def _start(number: int) -> str:
    return f"{number}. **"

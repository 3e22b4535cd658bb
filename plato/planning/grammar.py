"""The plan language as a grammar, for decoding under it.

One line a part, `number | dependencies | title`, and `[END]`; or `[ONE]` alone, *do not split*:

    1 | - | Solar power: cost and output
    2 | - | Wind power: cost and output
    3 | 1,2 | Recommendation
    [END]

The rules are unrolled line by line. A line's number is then known, the first line has nothing to
depend on, and `[END]` is impossible before the fewest and certain after the most lines: the
grammar leaves no choice there, and forced tokens need no decoding step. Measured on ten plans of
the default model (473 tokens): 327 are decoded, against 409 with one rule for all lines. In
`1|-|T` 371 of 433 are, in `1 |-| T` 359 of 473: a space in front of a separator makes it a token
of its own, and the one behind it belongs to the word that follows.
"""

from __future__ import annotations

ONE = "[ONE]"
"""Instead of a plan: the answer is not to be split."""
END = "[END]"
"""The last line of a plan."""
MIN_NODES = 3
"""Lines the model has to write before it may end the plan: small models end it too early."""

_LINE_TOKENS = 12
"""Number, separators, line end and a few dependencies."""


def plan_grammar(max_nodes: int, *, max_title_chars: int, allow_one: bool) -> str:
    """The grammar of plans with up to `max_nodes` lines, in llguidance's dialect of Lark.

    It is a part of the language that `PlanParser` reads: titles hold no brackets, so that a
    marker is never taken for one.

    Args:
        max_nodes: the most lines; `[END]` is forced behind them. At least 2.
        max_title_chars: the longest title, in characters. At least 2.
        allow_one: whether `[ONE]` may stand in place of a plan.
    """
    min_nodes = min(MIN_NODES, max_nodes)
    rules = [f'start: line1 | "{ONE}"' if allow_one else "start: line1"]
    for number in range(1, max_nodes + 1):
        # `needs` lists any smaller numbers, ascending; `ends` is a list that ends in its number,
        # `any` one that ends in its number or a smaller one.
        needs = '"-"' if number == 1 else f'("-" | any{number - 1})'
        following = f"line{number + 1}" if number < max_nodes else f'"{END}"'
        if min_nodes <= number < max_nodes:
            following = f'({following} | "{END}")'
        rules.append(f'line{number}: "{number} | " {needs} " | " TITLE "\\n" {following}')
        if number < max_nodes:
            earlier = "" if number == 1 else f' | any{number - 1} "," "{number}"'
            rules.append(f'ends{number}: "{number}"{earlier}')
            rules.append(f"any{number}: ends{number}" + (f" | any{number - 1}" * (number > 1)))
    edge, inner = r"[^\s|\[\]\x00-\x1f\x7f]", r"[^|\[\]\x00-\x1f\x7f\x85\u2028\u2029]"
    rules.append(f"TITLE: /{edge}({inner}{{0,{max_title_chars - 2}}}{edge})?/")
    return "\n".join(rules)


def plan_token_budget(max_nodes: int, max_title_chars: int) -> int:
    """Tokens that a plan within these bounds may take.

    Two characters a token: twice what English needs. Scripts that need more can reach the budget
    with long titles; the plan then ends with the lines that are complete.
    """
    return max_nodes * (_LINE_TOKENS + max_title_chars // 2)

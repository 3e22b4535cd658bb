"""Fitting other nodes' texts into a prompt."""

from __future__ import annotations

from collections.abc import Sequence

_LEAST_KEPT = 16
"""Tokens of a cut text; with fewer it says nothing and is left out."""


def fair_share(lengths: Sequence[int], room: int) -> int:
    """The most that each text may take so that all fit in `room`: short ones stay whole.

    Max-min fairness (water-filling): what short texts do not need goes to the longer ones.
    """
    share = room
    for taken, length in enumerate(sorted(lengths)):
        share = max(room, 0) // (len(lengths) - taken)
        if length > share:
            break
        room -= length
    else:
        share = max(lengths, default=0)
    return share


def cut_middle(tokens: Sequence[int], mark: Sequence[int], length: int) -> tuple[int, ...]:
    """At most `length` of `tokens`: beginning, `mark` and end; empty if too little would be left.

    The beginning says what a text is about and the end what it concludes.
    """
    if len(tokens) <= length:
        return tuple(tokens)
    kept = length - len(mark)
    if kept < _LEAST_KEPT:
        return ()
    tail = kept // 2
    return (*tokens[: kept - tail], *mark, *tokens[len(tokens) - tail :])

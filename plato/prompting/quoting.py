"""Fits the texts of other nodes into a prompt."""

from __future__ import annotations

from collections.abc import Sequence

_LEAST_KEPT = 16
"""Minimum tokens of a cut text; a shorter one is left out."""


def fair_share(lengths: Sequence[int], room: int) -> int:
    """Maximum length of each text so that all fit in `room`; short texts stay complete.

    Max-min fairness (water-filling): the room that short texts do not need goes to longer ones.
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

    The beginning has the topic of a text, and the end its conclusion.
    """
    if len(tokens) <= length:
        return tuple(tokens)
    kept = length - len(mark)
    if kept < _LEAST_KEPT:
        return ()
    tail = kept // 2
    return (*tokens[: kept - tail], *mark, *tokens[len(tokens) - tail :])

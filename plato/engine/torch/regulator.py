"""Which branches advance in a step.

A branch is a further sequence of a run that decodes already (`GenerateRequest.branch`). It makes
the steps of all others longer, so it advances only in steps that stay within what they can bear
(per-step admission as in TAPER, arXiv 2605.06914, with measured step times).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence as Items
from dataclasses import dataclass

from plato.engine.step_times import StepTimes
from plato.engine.torch.sequence import Sequence

LEAST_PREFILL = 2
"""Prompt tokens of a branch that every step computes, whatever they cost."""


@dataclass(frozen=True, slots=True)
class Share:
    """What branches may do in one step."""

    decoding: list[Sequence]
    """The sequences that advance, branches among them."""
    prompt_tokens: float = math.inf
    """Tokens of branches' prompts."""


class BranchRegulator:
    """Keeps steps short while a run with only one sequence decodes.

    They take at most `slowdown` times as long as without branches, or the target for the time
    between tokens.
    """

    def __init__(
        self, times: StepTimes, slowdown: float | None, token_target_s: float | None = None
    ) -> None:
        """Without `slowdown` branches are not delayed."""
        self._times = times
        self._slowdown = slowdown
        self._token_target_s = token_target_s

    def share(self, decoding: Items[Sequence], prompts: Items[Sequence] = ()) -> Share:
        """What advances of the sequences that could decode, in their order.

        `prompts` are the sequences that run beside them without a token yet.
        """
        runs = Counter(sequence.run for sequence in (*decoding, *prompts))
        curve = self._times.curve
        if self._slowdown is None or len(runs) < 2 or 1 not in runs.values() or not curve:
            return Share(list(decoding))
        alone = len({sequence.run for sequence in decoding})
        limit_s = curve.bearable_s(alone, self._slowdown, self._token_target_s)
        first, branches = _split(decoding)
        widest = min(curve.widest(limit_s), len(decoding))
        room = max(0, math.floor(widest) - len(first))
        advancing = {*first, *branches[:room]}
        left_s = limit_s - curve.seconds(len(advancing))
        each_s = self._times.prefill_s
        tokens = left_s / each_s if each_s else math.inf
        return Share([s for s in decoding if s in advancing], max(LEAST_PREFILL, tokens))


def _split(decoding: Items[Sequence]) -> tuple[list[Sequence], list[Sequence]]:
    """The sequences that always advance, at least one of each run, and the branches.

    Branches of runs with few come first, so that runs share the room.
    """
    certain = {sequence.run for sequence in decoding if not sequence.request.branch}
    first: list[Sequence] = []
    ranked: list[tuple[int, Sequence]] = []
    before = Counter[tuple[str, str]]()
    for sequence in decoding:
        run = sequence.run
        if not sequence.request.branch or run not in certain:
            first.append(sequence)
            certain.add(run)
        else:
            ranked.append((before[run], sequence))
            before[run] += 1
    ranked.sort(key=lambda item: item[0])
    return first, [sequence for _, sequence in ranked]

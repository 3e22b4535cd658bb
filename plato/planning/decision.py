"""Decisions that the model makes by the probabilities of named tokens, each in one decoding step.

A small model's probabilities are biased by the wording of the prompt, but they rank well. So a
decision compares them with a threshold that is calibrated on labelled examples (`python -m
benchmarks.planning`) and not with one half. Thresholds are specific to a model and a wording.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from plato.errors import ModelError
from plato.models.calibration import Calibration
from plato.planning.parser import ONE
from plato.prompting import Tokenizer
from plato.runs import Node


class SplitDecision:
    """Whether to split the answer: the model's probability of `[ONE]` rather than a plan.

    For SmolLM2-135M-Instruct in int8, 0.00099 has the lowest cost on the odd-numbered Vicuna
    questions, with false splits counted twice (labels: Skeleton-of-Thought,
    `data/vicuna/router.csv`): AUC 0.95, 1 false split, 3 missed of 19. On the even-numbered ones,
    measured once: AUC 0.94, 1 false split of 22, 1 missed of 18. The probabilities are far below
    one half because the instruction asks for splitting.
    """

    def __init__(self, tokenizer: Tokenizer, calibration: Calibration) -> None:
        """Its `split_threshold` is a probability: the answer is split up to it.

        Raises `ModelError` if the tokenizer encodes both with the same first token.
        """
        # Of the first line in `wording.SPLIT`.
        one, split = (tokenizer.text(text)[0] for text in (ONE, "1 | - | Title"))
        if one == split:
            raise ModelError(
                "the tokenizer of this model encodes `[ONE]` and a plan with the same first token, "
                "so the model cannot choose between them; use another model"
            )
        self.candidates = (one, split)
        """For `GenerateRequest.score`."""
        self._threshold = calibration.split_threshold

    def probability(self, scores: Sequence[float]) -> float:
        """The model's probability of `[ONE]`, from the log probabilities of `candidates`."""
        one, split = scores
        if one == -math.inf:
            return 0.0
        return 1 / (1 + math.exp(min(split - one, 700)))

    def splits(self, probability: float) -> bool:
        """Whether the answer is split. At threshold 0 never, at 1 always."""
        return 0 < self._threshold >= probability


class DependencyDecision:
    """Which earlier parts a part needs.

    None, if the log odds of "nothing" rather than any earlier part are above the threshold;
    otherwise the most likely one and those that are at most a margin less likely, with a bonus for
    the part directly before. The threshold trades dependencies that are kept for speed.
    """

    def __init__(self, tokenizer: Tokenizer, calibration: Calibration) -> None:
        """Its threshold, margin and bonus are in log odds: the lower, the fewer dependencies."""
        self._none = tokenizer.text(NONE)[0]
        letters = [tokenizer.text(f" {letter}") for letter in LETTERS]
        self._letters = tuple(letter[0] for letter in letters)
        self._calibration = calibration
        single = max(map(len, letters)) == 1
        distinct = len({self._none, *self._letters}) == 1 + len(letters)
        self.parts = len(letters) if single and distinct else 1
        """Parts up to this number can have dependencies: the first never has, and no other does
        if the tokenizer does not encode every letter as a token."""

    def candidates(self, earlier: int) -> tuple[int, ...]:
        """For `GenerateRequest.score`, with so many `earlier` parts."""
        return (self._none, *self._letters[:earlier])

    def log_odds(self, scores: Sequence[float]) -> float:
        """Of "none", from the log probabilities of `candidates`."""
        none, *parts = scores
        largest = max(parts)
        if largest == -math.inf:
            return math.inf
        return none - largest - math.log(sum(math.exp(part - largest) for part in parts))

    def choose(self, scores: Sequence[float]) -> tuple[int, ...]:
        """Numbers of the parts that are needed, from the log probabilities of `candidates`."""
        read = self._calibration
        if self.log_odds(scores) > read.dependency_threshold:
            return ()
        parts = list(scores[1:])
        parts[-1] += read.previous_bonus
        least = max(parts) - read.dependency_margin
        return tuple(number for number, part in enumerate(parts, start=1) if part >= least)


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Names of parts in the prompt: one token each. A part needs none beyond the 26th."""
NONE = " nothing"


def dependency_line(number: int, title: str) -> str:
    """What the decision on a part reads: it continues with `dependency_answer`."""
    return f"{LETTERS[number - 1]}: {title}. Uses"


def dependency_lines(earlier: Sequence[Node], title: str) -> list[str]:
    """The lines of `earlier` nodes, and the one to be decided, of a node with this title."""
    return [
        *(dependency_line(n.number, n.title) + dependency_answer(n.dependencies) for n in earlier),
        dependency_line(len(earlier) + 1, title),
    ]


def dependency_answer(dependencies: Sequence[int]) -> str:
    """The rest of a line that is decided."""
    names = [LETTERS[number - 1] for number in dependencies if number <= len(LETTERS)]
    return f" {' and '.join(names)}\n" if names else f"{NONE}\n"

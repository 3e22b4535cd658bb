"""The split decision: the model's own probability of `[ONE]` against a threshold.

The threshold is specific to a model and to the wording of the prompt. For SmolLM2-135M-Instruct in
int8 and `wording`, 0.00099 has the lowest cost on the odd-numbered Vicuna questions, with false
splits counted twice (labels: Skeleton-of-Thought, `data/vicuna/router.csv`): AUC 0.95, 1 false
split, 3 missed of 19. On the even-numbered ones, measured once: AUC 0.94, 1 false split of 22, 1
missed of 18. The probabilities are far below one half because the instruction asks for splitting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from plato.errors import ModelError
from plato.planning.grammar import ONE
from plato.prompting import Tokenizer

_NEVER = 1e4
"""A bias that exceeds every difference of logits."""


class SplitDecision:
    """Reads and biases the first token of a plan, which is `[` or `1`.

    Greedy decoding has its decision boundary at a probability of one half. Adding -logit(threshold)
    to the logit of `[ONE]` moves the boundary to the threshold, without an additional forward pass.
    """

    def __init__(self, tokenizer: Tokenizer, threshold: float) -> None:
        """`threshold` is a probability; 0 never splits unless `[ONE]` is impossible, 1 always.

        Raises `ModelError` if the tokenizer encodes both with the same first token.
        """
        self._one = tokenizer.text(ONE)[0]
        self._split = tokenizer.text("1 | - | Title")[0]
        if self._one == self._split:
            raise ModelError(
                "the tokenizer of this model encodes `[ONE]` and a plan with the same first token, "
                "so "
                "the model cannot choose between them; use another model"
            )
        self.bias = ((self._one, -_logit(threshold)),)
        """For `SamplingParams.first_token_bias`."""

    def probability(self, first: Mapping[int, float]) -> float:
        """The model's probability of `[ONE]` rather than a plan.

        `first` are log probabilities of candidates for the first token; a candidate that is missing
        is treated as impossible.
        """
        one = first.get(self._one, -math.inf)
        split = first.get(self._split, -math.inf)
        if one == -math.inf:
            return 0.0
        return 1 / (1 + math.exp(min(split - one, 700)))


def _logit(probability: float) -> float:
    if probability <= 0:
        return -_NEVER
    if probability >= 1:
        return _NEVER
    return math.log(probability / (1 - probability))

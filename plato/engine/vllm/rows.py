"""Plato's sampling inside vLLM's workers: a row of logits for each sequence of a step.

vLLM samples greedily, and finds one possible token in each row: the one chosen here. So penalties
with exempt tokens, random numbers keyed by node and position, grammars that resume and scripts are
those of `plato.engine.sampling`. Needs no vLLM.
"""

from __future__ import annotations

import contextlib
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from plato.engine.errors import RequestRefusedError
from plato.engine.protocol import GenerateRequest, SamplingParams
from plato.engine.sampling.matcher import GrammarCompiler, Matcher
from plato.engine.sampling.sampler import Draw, choose


@dataclass(frozen=True, slots=True)
class RowRequest:
    """What workers have to know of a request."""

    sampling: SamplingParams
    node: int
    emitted: tuple[int, ...]
    grammar: str
    """In llguidance's dialect of Lark; empty: none."""
    script: tuple[int, ...]
    score: tuple[int, ...]

    @classmethod
    def of(cls, request: GenerateRequest) -> RowRequest:
        """The part of a request that workers need."""
        return cls(
            request.sampling,
            request.node,
            request.emitted,
            request.grammar.lark if request.grammar else "",
            request.script,
            () if request.emitted else request.score,
        )

    def pack(self) -> bytes:
        """For another process of this engine."""
        return pickle.dumps(self)

    @staticmethod
    def unpack(packed: bytes) -> RowRequest:
        """Inverse of `pack`."""
        request: RowRequest = pickle.loads(packed)
        return request


class Row:
    """One sequence in a worker's batch. Made again when vLLM has preempted it."""

    def __init__(self, packed: bytes, tokens: Sequence[int], grammars: GrammarCompiler) -> None:
        """`tokens` is vLLM's list of what it has decoded, which grows."""
        self.request = RowRequest.unpack(packed)
        self._tokens = tokens
        self._matched = 0
        """How many of `tokens` the matcher has consumed."""
        self._matcher: Matcher | None = None
        if self.request.grammar:
            # An error here would end vLLM; the engine has refused what cannot be compiled.
            with contextlib.suppress(RequestRefusedError):
                self._matcher = grammars.matcher(self.request.grammar, self.request.emitted)

    @property
    def position(self) -> int:
        """Position of the next token in the output."""
        return len(self.request.emitted) + len(self._tokens)

    def draw(self) -> Draw:
        """Sampling input of the next token."""
        request = self.request
        matcher = self._follow()
        return Draw(
            request.sampling,
            request.node,
            [*request.emitted, *self._tokens],
            mask=None if matcher is None else matcher.mask(),
            score=() if self._tokens else request.score,
        )

    def _follow(self) -> Matcher | None:
        """The matcher after all tokens; `None` if there is no grammar to follow any more."""
        if self._matcher is None:
            return None
        try:
            self._matcher.consume(self._tokens[self._matched :])
        except RequestRefusedError:
            # The engine follows the grammar, too, and refuses the request.
            self._matcher = None
            return None
        self._matched = len(self._tokens)
        # The engine ends the sequence; until vLLM hears of it, anything may come.
        return None if self._matcher.complete else self._matcher


def sample_rows(logits: torch.Tensor, rows: Mapping[int, Row]) -> None:
    """Leave one token possible in each of these rows of `logits`, in place.

    Its value is positive. Those of tokens whose log probabilities are asked for stand for them, see
    `score_of`; all others become -inf.

    Args:
        logits: float32 [batch, vocabulary].
        rows: by their place in the batch.
    """
    if not rows:
        return
    index = torch.tensor(list(rows), device=logits.device)
    choices = choose(logits[index], [row.draw() for row in rows.values()])
    values: list[tuple[int, int, float]] = []
    for (place, row), choice in zip(rows.items(), choices, strict=True):
        # A grammar without a way out gets a token that does not match, which the engine refuses.
        token = max(choice.token, 0)
        if row.position < len(row.request.script):
            token = row.request.script[row.position]
        scores = dict(zip(row.request.score, choice.scores, strict=False))
        values.append((place, token, _shown(scores.pop(token, 0.0))))
        values += [(place, other, score) for other, score in scores.items()]
    places, tokens, shown = zip(*values, strict=True)
    logits.index_fill_(0, index, -math.inf)
    where = (torch.tensor(places), torch.tensor(tokens))
    logits[where] = torch.tensor(shown, dtype=logits.dtype, device=logits.device)


def score_of(value: float) -> float:
    """The log probability of a token by its value after `sample_rows`."""
    return value if value <= 0 else 1 - value


def _shown(score: float) -> float:
    """A value above those of all other tokens, whose log probabilities are at most 0."""
    return 1 - score

"""State of one sequence in the engine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from plato.engine.output import Output
from plato.engine.protocol import Chunk, FinishReason
from plato.engine.sampling.matcher import Matcher
from plato.engine.sampling.sampler import Choice, Draw
from plato.engine.torch.node import TreeNode

if TYPE_CHECKING:
    from numpy.typing import NDArray

_arrivals = itertools.count()


class Sequence:
    """State of one request, from its arrival to its last chunk.

    While it runs, its tokens have two parts. Those before `tail_start` are in the tree, locked and
    shared with others; the rest, its *tail*, is private: the last token known at its admission and
    what it decodes. So there is always a token to compute, and with it the logits of the next one.
    While it waits it holds no KV.
    """

    def __init__(
        self,
        output: Output,
        matcher: Matcher | None,
        sink: Callable[[Chunk | Exception], None],
        *,
        adapted: bool,
    ) -> None:
        """`adapted`: whether it is computed with the model's adapter."""
        self.request = request = output.request
        self.output = output
        self.matcher = matcher
        self.sink = sink
        self.adapted = adapted
        self.arrival = next(_arrivals)
        self.prompt_length = len(request.prompt)
        self.tokens: list[int] = [*request.prompt.tokens, *request.emitted]
        """Of the prompt and the output."""

        # Where its KV is, while it runs; maintained by `Scheduler`.
        self.leaf: TreeNode | None = None
        """End of its path in the tree; `None` while it waits."""
        self.tail_start = 0
        self.slots: NDArray[np.int64] = np.empty(0, np.int64)
        """Slot of every position up to its budget; undefined from `reserved` on."""
        self.reserved = 0
        self.computed = 0
        """Leading tokens whose KV is computed."""
        self.reached = 0
        """Most tokens computed before a preemption: positions below it are recomputed."""
        self.preemptions = 0

        self.own_prompt_tokens = 0
        """Prompt tokens that this sequence computed itself, each counted once."""
        self.expected_prefill = 0
        """Tokens to compute before the next token, as of its enqueueing."""
        self.prefill_due = math.inf
        """Order of prompts in the steps' prefill; see `Scheduler`."""

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.request.prompt.tenant

    @property
    def run(self) -> tuple[str, str]:
        """Its run: ids are those of the tenant."""
        return self.tenant, self.request.run_id

    @property
    def slots_needed(self) -> int:
        """Slots for its whole budget; the KV of the last token is never computed."""
        return self.prompt_length + self.request.max_tokens - 1

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that it has not had to compute so far."""
        return self.prompt_length - self.own_prompt_tokens

    @property
    def running(self) -> bool:
        """Whether it holds KV."""
        return self.leaf is not None

    def draw(self) -> Draw:
        """Sampling input for its next token."""
        return Draw(
            self.request.sampling,
            self.request.node,
            self.output.tokens,
            mask=None if self.matcher is None else self.matcher.mask(),
            score=() if self.output.tokens else self.request.score,
        )

    def take(self, choice: Choice, forced: Callable[[Matcher], list[int]]) -> int:
        """Append a sampled token and those that the grammar forces after it; returns their number.

        A request's script replaces the sampled token. Sets the finish reason if an end token or
        the grammar ends the sequence. Raises `RequestRefusedError` if the grammar cannot be
        followed.
        """
        if choice.error is not None:
            raise choice.error
        output, script = self.output, self.request.script
        before = len(output)
        if before == 0:
            output.scores = choice.scores
        token = script[before] if before < len(script) else choice.token
        output.steps += 1
        self._append([token])
        if output.finish is None and self.matcher is not None:
            self.matcher.consume([token])
            fits = self._append(forced(self.matcher))
            if fits and self.matcher.complete:
                output.finish = FinishReason.STOP
        return len(output) - before

    def _append(self, tokens: list[int]) -> bool:
        """Append tokens to the output, within the budget; False if some did not fit."""
        taken = self.output.append(tokens)
        self.tokens.extend(tokens[:taken])
        return taken == len(tokens)

    def order(self) -> tuple[float, int, int]:
        """Sort key of a tenant's sequences: by run, within a run by priority, then by arrival."""
        return self.request.run_began_unix_s, -self.request.priority, self.arrival

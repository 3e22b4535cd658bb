"""State of one sequence in the engine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from plato.engine.protocol import Chunk, FinishReason, GenerateRequest
from plato.engine.torch.grammar import Matcher
from plato.engine.torch.node import TreeNode
from plato.engine.torch.text import TextStream

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
        request: GenerateRequest,
        text: TextStream,
        matcher: Matcher | None,
        sink: Callable[[Chunk | Exception], None],
    ) -> None:
        self.request = request
        self.text = text
        self.matcher = matcher
        self.sink = sink
        self.arrival = next(_arrivals)
        self.prompt_length = len(request.prompt)
        self.tokens: list[int] = [*request.prompt.tokens, *request.emitted]
        self.output: list[int] = list(request.emitted)
        """Output tokens, including those of earlier attempts."""
        self.reported = len(self.tokens)
        """Tokens sent in chunks so far, including the prompt."""
        self.finish: FinishReason | None = None
        self.scores: tuple[float, ...] = ()
        self.steps = 0

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

    def append(self, tokens: list[int]) -> bool:
        """Append tokens to the output, within the budget; False if some did not fit."""
        room = self.request.max_tokens - len(self.output)
        self.tokens.extend(tokens[:room])
        self.output.extend(tokens[:room])
        return len(tokens) <= room

    def order(self) -> tuple[float, int, int]:
        """Sort key of a tenant's sequences: by run, within a run by priority, then by arrival."""
        return self.request.run_began_unix_s, -self.request.priority, self.arrival

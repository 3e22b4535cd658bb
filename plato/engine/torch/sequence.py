"""One sequence on its way through the engine."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from plato.engine.protocol import Chunk, FinishReason, GenerateRequest
from plato.engine.torch.grammar import Matcher
from plato.engine.torch.text import TextStream
from plato.engine.torch.tree import TreeNode

if TYPE_CHECKING:
    from numpy.typing import NDArray

_arrivals = itertools.count()


class Sequence:
    """State of one request.

    Its tokens have two parts. What stands before `tail_start` lies in the tree, locked, shared
    with others; the rest (the last known token and what is decoded) is its own until it ends. So
    there is always a token to compute, and with it the logits of the next one.
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
        self.tail_start = len(self.tokens) - 1
        self.leaf: TreeNode | None = None
        """End of its path in the tree; `None` while it waits."""
        self.slots: NDArray[np.int64] = np.empty(0, np.int64)
        """Slot of every position, up to the token budget."""
        self.expected_prefill = 0
        """Tokens to compute before the first output token, as far as its arrival showed."""
        self.tail_computed = 0
        """Tokens of the tail whose KV is there."""
        self.own_prompt_tokens = 0
        """Prompt tokens that this sequence computed itself."""
        self.steps = 0
        self.reported = len(self.tokens)
        """Tokens that chunks have carried so far, prompt included."""
        self.finish: FinishReason | None = None
        self.first: tuple[tuple[int, float], ...] = ()

    @property
    def needed_slots(self) -> int:
        """KV of everything it may ever hold; the last token's is never computed."""
        return self.prompt_length + self.request.max_tokens - 1

    @property
    def output(self) -> list[int]:
        """Output tokens, those of earlier attempts included."""
        return self.tokens[self.prompt_length :]

    @property
    def output_length(self) -> int:
        """How many output tokens there are."""
        return len(self.tokens) - self.prompt_length

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that it did not have to compute (so far)."""
        return self.prompt_length - self.own_prompt_tokens

    def append(self, tokens: list[int]) -> bool:
        """Take tokens into the output, within the budget; False if some did not fit."""
        room = self.request.max_tokens - self.output_length
        self.tokens.extend(tokens[:room])
        return len(tokens) <= room

    def order(self) -> tuple[int, int]:
        """Sorts by priority, then by arrival."""
        return -self.request.priority, self.arrival

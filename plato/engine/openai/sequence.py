"""One sequence at a server, or on its way there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from plato.engine.mailbox import Mailbox
from plato.engine.openai.dialects import Delta
from plato.engine.output import Output
from plato.engine.protocol import FinishReason, GenerateRequest


class UpstreamSequence:
    """From the deltas of a server to the output of a request.

    The server may decode more than the output takes: it knows no stop strings and no sentences.
    """

    def __init__(self, output: Output, prefill_tokens: int) -> None:
        """`prefill_tokens` are those of the prompt that the server should have to compute."""
        self.output = output
        self.mailbox = Mailbox(output.request.group_s)
        self.task: asyncio.Task[None] | None = None
        """Reads the server's stream."""
        self.prefill_tokens = prefill_tokens
        self.cached_tokens = 0
        """As reported by the server."""
        self.begun = False
        """Whether the server has decoded a token."""
        self.server_finish: FinishReason | None = None

    @property
    def request(self) -> GenerateRequest:
        """What was asked for."""
        return self.output.request

    def stop(self) -> None:
        """Read no more of the server's stream, which it takes as a cancellation."""
        if self.task is not None:
            self.task.cancel()

    def take(self, delta: Delta) -> str:
        """Append the tokens of a delta; returns the text that can be released now.

        Tokens count one by one, so the output does not depend on how the server groups them.
        """
        self.cached_tokens = min(
            max(self.cached_tokens, delta.cached_tokens), len(self.request.prompt)
        )
        if delta.scores:
            self.output.scores = delta.scores
        text, whole = self._append(delta.tokens)
        self.server_finish = delta.finish or self.server_finish
        if delta.finish is not None and whole and self.output.finish is not FinishReason.STOP:
            # The budget can end with the token that ends the turn.
            if self.output.finish is None:
                self.output.finish = delta.finish
                text += self.output.release()
            self.output.finish = delta.finish
        return text

    def _append(self, tokens: Iterable[int]) -> tuple[str, bool]:
        """Append tokens until the output ends; the text, and whether it took all of them."""
        text = ""
        for token in tokens:
            if self.output.finish is not None:
                return text, False
            self.output.append([token])
            self.output.steps += 1
            text += self.output.release()
        return text, True

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
        self.usage: tuple[int, int] | None = None
        """See `Delta.usage`."""
        self.begun = False
        """Whether the server has decoded a token."""
        self.server_finish: FinishReason | None = None
        self.overrun = False
        """Whether the server has decoded more than the output takes."""

    @property
    def request(self) -> GenerateRequest:
        """What was asked for."""
        return self.output.request

    @property
    def over(self) -> bool:
        """Whether nothing more of the server's stream matters.

        Where the server ends the sequence, too, its last event tells what it had cached.
        """
        output = self.output
        server_ends = output.ended_turn or len(output) == self.request.max_tokens
        expects_more = server_ends and not self.overrun
        return output.finish is not None and self.server_finish is None and not expects_more

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
        self.usage = delta.usage or self.usage
        if delta.scores:
            self.output.scores = delta.scores
        text = self._append(delta.tokens)
        if delta.finish is not None:
            self.server_finish = delta.finish
            text += self._end(delta.finish)
        return text

    def _end(self, finish: FinishReason) -> str:
        """The server has ended the sequence; returns the text that was held back."""
        if self.output.finish is None:
            self.output.finish = finish
            return self.output.release()
        if finish is FinishReason.STOP and not self.overrun:
            # The budget was used up by the token that ends the turn.
            self.output.finish = finish
        return ""

    def _append(self, tokens: Iterable[int]) -> str:
        """Append tokens until the output ends; returns the text that can be released."""
        text = ""
        for token in tokens:
            if self.output.finish is not None:
                self.overrun = True
                break
            self.output.append([token])
            self.output.steps += 1
            text += self.output.release()
        return text

"""One sequence at vLLM, or on its way there."""

from __future__ import annotations

import asyncio

from plato.engine.mailbox import Mailbox
from plato.engine.output import Output
from plato.engine.protocol import FinishReason, GenerateRequest
from plato.engine.sampling.matcher import Matcher


class VllmSequence:
    """From the tokens of vLLM to the output of a request.

    vLLM may decode a token more than the output takes: it knows neither stop strings nor sentences
    nor where a grammar ends.
    """

    def __init__(self, output: Output) -> None:
        """Create it in the consumer's event loop."""
        self.output = output
        self.mailbox = Mailbox(output.request.group_s)
        self.matcher: Matcher | None = None
        """Follows the grammar, if there is one."""
        self.task: asyncio.Task[None] | None = None
        """Reads vLLM's tokens."""
        self.prefill_tokens = 0
        """Prompt tokens that vLLM should have to compute."""
        self.cached_tokens = 0
        self.begun = False
        """Whether vLLM has decoded a token."""

    @property
    def request(self) -> GenerateRequest:
        """What was asked for."""
        return self.output.request

    def stop(self) -> None:
        """Read no more of vLLM's tokens, which aborts its request."""
        if self.task is not None:
            self.task.cancel()

    def take(self, tokens: tuple[int, ...]) -> str:
        """Append tokens until the output ends; returns the text that can be released.

        Raises `RequestRefusedError` if the grammar cannot be followed.
        """
        text = ""
        for token in tokens:
            if self.output.finish is not None:
                break
            self.output.append([token])
            self.output.steps += 1
            if self.matcher is not None and self.output.finish is None:
                self.matcher.consume([token])
                if self.matcher.complete:
                    self.output.finish = FinishReason.STOP
            text += self.output.release()
        return text

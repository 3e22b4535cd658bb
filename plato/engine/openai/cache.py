"""What one incarnation of a server should have cached, and who computes what now."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from plato.engine.capabilities import Capabilities, PrefixSharing
from plato.engine.kv_events import KVEventLog
from plato.engine.openai.gate import LeaderGate
from plato.engine.openai.prefixes import SentPrefixes
from plato.engine.prompt import Prompt, Segment


class ServerCache:
    """A guess by what was sent; a new one begins when the server may have restarted."""

    def __init__(self, capabilities: Capabilities, patience_s: float) -> None:
        """Siblings wait for each other for at most `patience_s`."""
        self.epoch = uuid.uuid4().hex[:12]
        self._sharing = capabilities.prefix_sharing
        self._prefixes = SentPrefixes(
            capabilities.prefix_granularity, public_sharing=capabilities.public_sharing
        )
        self._gate = LeaderGate(self._prefixes.__contains__, patience_s)

    @property
    def events(self) -> KVEventLog:
        """Changes of what should be cached."""
        return self._prefixes.events

    def cached(self, prompt: Prompt) -> int:
        """Leading tokens of `prompt` that should be cached."""
        return self._prefixes.cached(prompt)

    def lead(self, prompt: Prompt) -> AbstractAsyncContextManager[Callable[[], None]]:
        """Wait for siblings where that saves computing a prefix twice; see `LeaderGate.lead`."""
        if self._sharing is PrefixSharing.COMPUTED:
            return self._gate.lead(self._prefixes.chains(prompt))
        return nullcontext(lambda: None)

    def note_prompt(self, prompt: Prompt) -> None:
        """The server has computed a prompt, and decodes after it."""
        if self._sharing is not PrefixSharing.ENDED:
            self._prefixes.note(prompt, len(prompt))

    def note_output(self, prompt: Prompt, tokens: tuple[int, ...]) -> None:
        """The server has decoded `tokens` after `prompt`, to the end of the sequence."""
        whole = prompt.extended(Segment(tokens))
        self._prefixes.note(whole, len(whole) - 1)

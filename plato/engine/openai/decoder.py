"""Sequences at one server: their places, their streams, and what they leave in its cache."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

from plato.engine.errors import NotServedError, UpstreamError
from plato.engine.live import LiveSequences
from plato.engine.openai.cache import ServerCache
from plato.engine.openai.client import UpstreamClient
from plato.engine.openai.config import UpstreamConfig
from plato.engine.openai.connection import Connection
from plato.engine.openai.pause import ServerPause
from plato.engine.openai.sequence import UpstreamSequence
from plato.engine.openai.slots import Slots
from plato.engine.output import Output
from plato.engine.protocol import Chunk, GenerateRequest, Load
from plato.engine.rank import rank


class ServerDecoder:
    """Has a server decode sequences, in its order and within its places."""

    def __init__(
        self,
        config: UpstreamConfig,
        connection: Connection,
        live: LiveSequences[UpstreamSequence],
    ) -> None:
        self._config = config
        self._live = live
        self._places = min(config.max_sequences, connection.server.slots or config.max_sequences)
        self._slots = Slots(self._places, config.max_waiting)
        self.pause = ServerPause()
        self.prompt_tokens = self.cached_tokens = self.output_tokens = 0
        """Of sequences that have ended."""
        self.reconnect(connection)

    def reconnect(self, connection: Connection) -> None:
        """The server has come back, and its cache may be gone."""
        self.connection = connection
        self.cache = ServerCache(connection.capabilities, self._config.answer_s)

    @property
    def context_length(self) -> int:
        """Longest sequence of the server, in tokens."""
        return self.connection.server.context_length or self._config.context_length

    def new_sequence(self, request: GenerateRequest) -> UpstreamSequence:
        """A sequence that has not begun."""
        tokenizer = self._config.tokenizer
        eos = tokenizer.token_id("eos_token")
        # The server ends sequences at all tokens that end a turn, and says so.
        output = Output(request, tokenizer.backend, frozenset() if eos is None else {eos})
        return UpstreamSequence(output, len(request.prompt) - self.cache.cached(request.prompt))

    async def decode(self, client: UpstreamClient, sequence: UpstreamSequence) -> None:
        """Decode a sequence into its mailbox."""
        request = sequence.request
        try:
            async with (
                self._slots.place(rank(request)),
                self.cache.lead(request.prompt) as prefilled,
            ):
                with self.pause.respected():
                    await self._read(client, sequence, prefilled)
        except NotServedError as error:
            # It was there at start, so another server may still have it.
            sequence.mailbox.put(UpstreamError(str(error)))
        except Exception as error:
            sequence.mailbox.put(error)

    async def _read(
        self, client: UpstreamClient, sequence: UpstreamSequence, prefilled: Callable[[], None]
    ) -> None:
        """Read the server's stream, up to the end of the output."""
        connection, output = self.connection, sequence.output
        generation = connection.generation(sequence.request, self._config.key)
        output.scores = await connection.scores(client, generation)
        text = ""
        async with aclosing(connection.deltas(client, generation)) as deltas:
            try:
                async for delta in deltas:
                    text += sequence.take(delta)
                    if delta.tokens and not sequence.begun:
                        self._begin(sequence)
                        prefilled()
                    if sequence.over:
                        break
                    if output.finish is None and delta.tokens:
                        sequence.mailbox.put(self.chunk(sequence, text))
                        text = ""
            except UpstreamError:
                # What follows the last token is about usage only.
                if output.finish is None:
                    raise
        if output.finish is None:
            raise UpstreamError("the answer ended before the sequence")
        self._end(sequence)
        sequence.mailbox.put(self.chunk(sequence, text))

    def _begin(self, sequence: UpstreamSequence) -> None:
        """The server has computed a sequence's prompt."""
        sequence.begun = True
        self._live.note_prefilled(sequence)
        self.cache.note_prompt(sequence.request.prompt)

    def _end(self, sequence: UpstreamSequence) -> None:
        """The server has decoded a sequence to its end."""
        request, tokens = sequence.request, sequence.output.tokens
        decoded = len(tokens) - len(request.emitted)
        prompt, output = sequence.usage or (len(request.prompt), decoded)
        self.prompt_tokens += prompt
        self.cached_tokens += sequence.cached_tokens
        self.output_tokens += output
        self.cache.note_output(request.prompt, tuple(tokens))

    def chunk(self, sequence: UpstreamSequence, text: str) -> Chunk:
        """What a sequence has to tell, with new `text`."""
        return sequence.output.chunk(
            text,
            cached_tokens=sequence.cached_tokens,
            replica=self._config.name,
            epoch=self.cache.epoch,
            load=self.load(),
        )

    def load(self) -> Load:
        """The load of the server, as far as it is from here."""
        # Servers do not say how much KV they have: by assumption enough for what they are sent.
        assumed = self.context_length * self._places
        return Load(
            running=self._slots.running,
            waiting=self._slots.waiting,
            places=self._places,
            runs=self._live.runs,
            prefill_tokens=self._live.prefill_tokens,
            kv_free=max(0, assumed - self._live.held_tokens),
        )

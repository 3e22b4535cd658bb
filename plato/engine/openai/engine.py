"""A server of others as an engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from plato.engine.capabilities import Capabilities
from plato.engine.checks import check_capabilities, check_request
from plato.engine.errors import (
    EngineBusyError,
    EngineClosedError,
    EngineError,
    RequestRefusedError,
    UpstreamError,
)
from plato.engine.live import LiveSequences, owned_by
from plato.engine.openai.cache import ServerCache
from plato.engine.openai.client import UpstreamClient
from plato.engine.openai.config import UpstreamConfig
from plato.engine.openai.connection import connect, connect_at_start
from plato.engine.openai.sequence import UpstreamSequence
from plato.engine.openai.slots import Slots
from plato.engine.openai.tenancy import SoleTenant
from plato.engine.output import Output
from plato.engine.prompt import Prompt
from plato.engine.protocol import (
    Chunk,
    EngineStats,
    GenerateRequest,
    KVEventBatch,
    KVPiece,
    Load,
)
from plato.tasks import end_task, repeat

logger = logging.getLogger(__name__)

LEASE_INTERVAL_S = 0.1
HEALTH_INTERVAL_S = 2.0
HEALTH_DEADLINE_S = 2.0
MIN_CONTEXT = 4096
"""Assumed of a server that does not say how long its sequences can be."""


class UpstreamEngine:
    """One server behind the `Engine` protocol.

    Belongs to the event loop in which it is first used.
    """

    def __init__(self, config: UpstreamConfig) -> None:
        """Ask the server what it is; do not call it in an event loop's thread.

        Raises `EngineError` if it does not answer within `config.start_s`, is of an unknown kind
        or has another model.
        """
        self._config = config
        self._connection = asyncio.run(connect_at_start(config))
        self._client: UpstreamClient | None = None
        self._watchers: list[asyncio.Task[None]] = []
        """Check leases and health; ended by `close`."""
        self._outages = 0
        """Of those that the client counts, the ones that were dealt with."""
        self._well = True
        """Whether the last check of its health succeeded."""
        self._failure: EngineError | None = None
        self._live = LiveSequences[UpstreamSequence]()
        self._sole_tenant = SoleTenant()
        slots = self._connection.server.slots or config.max_sequences
        self._places = min(config.max_sequences, slots)
        self._slots = Slots(self._places, config.max_waiting)
        self._cache = self._new_cache()
        self._prompt_tokens = self._cached_tokens = self._output_tokens = 0

    @property
    def epoch(self) -> str:
        """Random identifier; changes when the server may have lost its cache."""
        return self._cache.epoch

    @property
    def capabilities(self) -> Capabilities:
        """See `Engine.capabilities`."""
        return self._connection.capabilities

    @property
    def context_length(self) -> int:
        """Longest sequence of the server, in tokens."""
        return self._connection.server.context_length or MIN_CONTEXT

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk]:
        """Decode one sequence; see `Engine.generate`.

        Raises `UpstreamError`, too, if the server is away or does not answer as it should.
        """
        self._require_alive()
        self._check(request)
        client = self._start()
        sequence = self._new_sequence(request)
        self._live.add(sequence)
        try:
            yield self._chunk(sequence, "")
            if sequence.output.finish is None:
                self._require_alive()
                sequence.task = asyncio.create_task(self._decode(client, sequence), name="upstream")
            finished = False
            while not finished:
                chunk = await sequence.mailbox.get()
                finished = chunk.finish is not None
                yield chunk
        finally:
            self._live.remove(sequence)
            if sequence.task is not None:
                await end_task(sequence.task)

    def renew(self, owner: str, ttl_s: float) -> None:
        """Extend the lease of all sequences of `owner` to `ttl_s` seconds from now."""
        self._live.renew(owner, ttl_s)

    def cancel(self, run_id: str, node: int | None = None) -> None:
        """Cancel a run's sequences, or one node's."""
        self._cancel(lambda r: r.run_id == run_id and node in (None, r.node))

    def cached_prefix(self, prompt: Prompt) -> int:
        """Leading tokens of `prompt` that the server should have cached: a guess."""
        return self._cache.cached(prompt)

    def pin(self, run_id: str, prompt: Prompt, distance: int) -> None:
        """Nothing: servers have no pins."""

    def release(self, run_id: str) -> None:
        """Nothing: servers have no pins."""

    def stats(self) -> EngineStats:
        """Counters and state; see `Engine.stats`."""
        self._require_alive()
        return EngineStats(
            model=self._connection.server.model,
            epoch=self._cache.epoch,
            dtype=self._connection.dialect.name,
            context_length=self.context_length,
            kv_capacity=0,
            kv_used=0,
            load=self._load(),
            steps=0,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            output_tokens=self._output_tokens,
            capabilities=self.capabilities,
            idle_s=time.monotonic() - self._client.heard_at if self._client else 0.0,
            available=self._client is None or self._client.available,
            live=tuple((s.request.run_id, s.request.node) for s in self._live),
        )

    async def export_kv(self, prompt: Prompt, start: int) -> KVPiece | None:
        """`None`: servers do not give their KV away."""
        return None

    async def import_kv(self, prompt: Prompt, piece: KVPiece) -> int:
        """0: servers take no KV."""
        return 0

    async def kv_snapshot(self) -> KVEventBatch:
        """The named prefixes that the server should have cached."""
        return self._cache.events.snapshot()

    async def take_kv_events(self) -> KVEventBatch | None:
        """Changes of what the server should have cached; see `Engine.take_kv_events`."""
        self._require_alive()
        return self._cache.events.take()

    async def close(self) -> None:
        """End all sequences, and close the connections. Idempotent."""
        self._fail(EngineClosedError("the engine is shutting down"))
        for task in (*self._watchers, *(s.task for s in self._live)):
            if task is not None:
                await end_task(task)
        if self._client is not None:
            await self._client.close()

    def _new_cache(self) -> ServerCache:
        return ServerCache(self.capabilities, self._config.answer_s)

    def _start(self) -> UpstreamClient:
        """Create what belongs to the event loop, at the first request."""
        if self._client is None:
            self._client = UpstreamClient(self._config)
            checks = {LEASE_INTERVAL_S: self._check_leases, HEALTH_INTERVAL_S: self._check_health}
            self._watchers = [
                asyncio.create_task(repeat(interval_s, check), name="upstream-watch")
                for interval_s, check in checks.items()
            ]
        return self._client

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise EngineClosedError(str(self._failure)) from self._failure

    def _check(self, request: GenerateRequest) -> None:
        """Raise `RequestRefusedError` if the server cannot serve a request."""
        check_request(
            request,
            fingerprint=self._config.fingerprint,
            context_length=self.context_length,
            vocabulary=self._config.tokenizer.backend.get_vocab_size(),
        )
        check_capabilities(request, self.capabilities)
        prompt = request.prompt
        if not self.capabilities.tenants and prompt.public_tokens < len(prompt):
            self._sole_tenant.require(prompt.tenant)

    def _new_sequence(self, request: GenerateRequest) -> UpstreamSequence:
        tokenizer = self._config.tokenizer
        eos = tokenizer.token_id("eos_token")
        # The server ends sequences at all tokens that end a turn, and says so.
        output = Output(request, tokenizer.backend, frozenset() if eos is None else {eos})
        return UpstreamSequence(output, len(request.prompt) - self.cached_prefix(request.prompt))

    async def _decode(self, client: UpstreamClient, sequence: UpstreamSequence) -> None:
        """Decode a sequence into its mailbox."""
        request = sequence.request
        rank = (request.run_began_unix_s, -request.priority)
        try:
            async with self._slots.place(rank), self._cache.lead(request.prompt) as prefilled:
                await self._read(client, sequence, prefilled)
        except Exception as error:
            sequence.mailbox.put(error)

    async def _read(
        self, client: UpstreamClient, sequence: UpstreamSequence, prefilled: Callable[[], None]
    ) -> None:
        """Read the server's stream, up to the end of the output."""
        connection, output = self._connection, sequence.output
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
                        sequence.mailbox.put(self._chunk(sequence, text))
                        text = ""
            except UpstreamError:
                # What follows the last token is about usage only.
                if output.finish is None:
                    raise
        if output.finish is None:
            raise UpstreamError("the answer ended before the sequence")
        self._end(sequence)
        sequence.mailbox.put(self._chunk(sequence, text))

    def _begin(self, sequence: UpstreamSequence) -> None:
        """The server has computed a sequence's prompt."""
        sequence.begun = True
        prompt = sequence.request.prompt
        self._live.note_prefilled(sequence)
        self._prompt_tokens += len(prompt)
        self._cache.note_prompt(prompt)

    def _end(self, sequence: UpstreamSequence) -> None:
        """The server has decoded a sequence to its end."""
        request, tokens = sequence.request, sequence.output.tokens
        self._cached_tokens += sequence.cached_tokens
        self._output_tokens += len(tokens) - len(request.emitted)
        self._cache.note_output(request.prompt, tuple(tokens))

    def _chunk(self, sequence: UpstreamSequence, text: str) -> Chunk:
        return sequence.output.chunk(
            text,
            cached_tokens=sequence.cached_tokens,
            replica=self._config.name,
            epoch=self._cache.epoch,
            load=self._load(),
        )

    def _load(self) -> Load:
        # Servers do not say how much KV they have: by assumption enough for what they are sent.
        assumed = self.context_length * self._places
        return Load(
            running=self._slots.running,
            waiting=self._slots.waiting,
            prefill_tokens=self._live.prefill_tokens,
            kv_free=max(0, assumed - self._live.held_tokens),
        )

    def _cancel(self, match: Callable[[GenerateRequest], bool]) -> None:
        for sequence in self._live.cancel(match):
            sequence.mailbox.put(self._chunk(sequence, ""))

    def _fail(self, error: EngineError) -> None:
        """End all sequences with an error, and take no more."""
        self._failure = self._failure or error
        self._live.fail(str(error))

    async def _check_leases(self) -> None:
        if expired := self._live.take_expired():
            logger.warning("lease expired, cancelling the sequences of %s", sorted(expired))
            self._cancel(owned_by(expired))

    async def _check_health(self) -> None:
        """Ask the server whether it is well, and after an outage what it is now."""
        client = self._start()
        try:
            await client.ping("/health", HEALTH_DEADLINE_S)
            outages = client.outages
            if outages != self._outages:
                self._connection = await connect(client, self._config)
                self._outages = outages
                self._cache = self._new_cache()
            if not self._well:
                logger.info("%s is well again", self._config.url)
            self._well = True
        except (UpstreamError, EngineBusyError, RequestRefusedError) as error:
            if self._well:
                logger.warning("%s: %s", self._config.url, error)
            self._well = False
        except EngineError as error:
            # It came back as another server.
            logger.error("%s: %s", self._config.url, error)
            self._fail(error)

"""A server of others as an engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable

from plato.engine.capabilities import Capabilities
from plato.engine.checks import check_capabilities, check_request
from plato.engine.errors import EngineClosedError, UpstreamError
from plato.engine.live import LiveSequences, owned_by
from plato.engine.openai import health
from plato.engine.openai.client import UpstreamClient
from plato.engine.openai.config import UpstreamConfig
from plato.engine.openai.connection import connect, connect_at_start
from plato.engine.openai.decoder import ServerDecoder
from plato.engine.openai.sequence import UpstreamSequence
from plato.engine.prompt import Prompt
from plato.engine.protocol import (
    Chunk,
    EngineStats,
    GenerateRequest,
    KVEventBatch,
    KVPiece,
)
from plato.tasks import end_task, repeat

logger = logging.getLogger(__name__)

LEASE_INTERVAL_S = 0.1
SHUTTING_DOWN = "the engine is shutting down"


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
        connection = asyncio.run(connect_at_start(config))
        self._client: UpstreamClient | None = None
        self._watchers: list[asyncio.Task[None]] = []
        """Check leases and health; ended by `close`."""
        self._health = health.Health(config.url)
        self._outages = 0
        """Of those that the client counts, the ones after which it was asked what it is."""
        self._closed = False
        self._live = LiveSequences[UpstreamSequence]()
        self._decoder = ServerDecoder(config, connection, self._live)

    @property
    def epoch(self) -> str:
        """Random identifier; changes when the server may have lost its cache."""
        return self._decoder.cache.epoch

    @property
    def capabilities(self) -> Capabilities:
        """See `Engine.capabilities`."""
        return self._decoder.connection.capabilities

    @property
    def context_length(self) -> int:
        """Longest sequence of the server, in tokens."""
        return self._decoder.context_length

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk]:
        """Decode one sequence; see `Engine.generate`.

        Raises `UpstreamError`, too, if the server is away or does not answer as it should. One that
        takes nothing for now is left alone: `EngineBusyError` has the time.
        """
        self._require_open()
        if self._health.problem:
            raise self._health.error
        self._check(request)
        client = self._start()
        sequence = self._decoder.new_sequence(request)
        self._live.add(sequence)
        try:
            yield self._decoder.chunk(sequence, "")
            if sequence.output.finish is None:
                self._require_open()
                decode = self._decoder.decode(client, sequence)
                sequence.task = asyncio.create_task(decode, name="upstream")
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
        return self._decoder.cache.cached(prompt)

    def pin(self, run_id: str, prompt: Prompt, distance: int) -> None:
        """Nothing: servers have no pins."""

    def release(self, run_id: str) -> None:
        """Nothing: servers have no pins."""

    def stats(self) -> EngineStats:
        """Counters and state; see `Engine.stats`."""
        self._require_open()
        decoder = self._decoder
        return EngineStats(
            model=decoder.connection.server.model,
            epoch=self.epoch,
            dtype=decoder.connection.dialect.name,
            context_length=self.context_length,
            kv_capacity=0,
            kv_used=0,
            load=decoder.load(),
            steps=0,
            prompt_tokens=decoder.prompt_tokens,
            cached_tokens=decoder.cached_tokens,
            output_tokens=decoder.output_tokens,
            capabilities=self.capabilities,
            idle_s=time.monotonic() - self._client.heard_at if self._client else 0.0,
            available=self._client is None or (self._client.available and not self._health.problem),
            problem=self._health.problem or decoder.pause.reason,
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
        return self._decoder.cache.events.snapshot()

    async def take_kv_events(self) -> KVEventBatch | None:
        """Changes of what the server should have cached; see `Engine.take_kv_events`."""
        self._require_open()
        return self._decoder.cache.events.take()

    async def close(self) -> None:
        """End all sequences, and close the connections. Idempotent."""
        self._closed = True
        self._live.fail(SHUTTING_DOWN)
        for task in (*self._watchers, *(s.task for s in self._live)):
            if task is not None:
                await end_task(task)
        if self._client is not None:
            await self._client.close()

    def _start(self) -> UpstreamClient:
        """Create what belongs to the event loop, at the first request."""
        if self._client is None:
            self._client = UpstreamClient(self._config)
            checks = {LEASE_INTERVAL_S: self._check_leases, health.INTERVAL_S: self._check_health}
            self._watchers = [
                asyncio.create_task(repeat(interval_s, check), name="upstream-watch")
                for interval_s, check in checks.items()
            ]
        return self._client

    def _require_open(self) -> None:
        if self._closed:
            raise EngineClosedError(SHUTTING_DOWN)

    def _check(self, request: GenerateRequest) -> None:
        """Raise `RequestRefusedError` if the server cannot serve a request."""
        check_request(
            request,
            fingerprints=(self._config.fingerprint,),
            context_length=self.context_length,
            vocabulary=self._config.tokenizer.backend.get_vocab_size(),
        )
        check_capabilities(request, self.capabilities)

    def _cancel(self, match: Callable[[GenerateRequest], bool]) -> None:
        for sequence in self._live.cancel(match):
            sequence.mailbox.put(self._decoder.chunk(sequence, ""))

    async def _check_leases(self) -> None:
        if expired := self._live.take_expired():
            logger.warning("lease expired, cancelling the sequences of %s", sorted(expired))
            self._cancel(owned_by(expired))

    async def _check_health(self) -> None:
        """Ask the server whether it is well; if not, what has not begun is for another one."""
        await self._health.check(self._probe)
        if self._health.problem:
            for sequence in self._live:
                if not sequence.begun:
                    sequence.mailbox.put(self._health.error)
                    sequence.stop()

    async def _probe(self) -> None:
        """Ask the server whether it is well, and after an outage what it is: its cache is gone.

        Raises `EngineError`.
        """
        client, decoder = self._start(), self._decoder
        await client.ping(decoder.connection.dialect.health)
        outages = client.outages
        if outages == self._outages and not self._health.problem:
            return
        try:
            async with asyncio.timeout(self._config.start_s):
                decoder.reconnect(await connect(client, self._config))
        except TimeoutError as error:
            raise UpstreamError("the server does not say in time what it is") from error
        self._outages = outages

"""A server of others as an engine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable

from plato.engine.capabilities import Capabilities
from plato.engine.checks import check_capabilities, check_request
from plato.engine.errors import (
    EngineClosedError,
    EngineError,
)
from plato.engine.live import LiveSequences, owned_by
from plato.engine.openai.client import UpstreamClient
from plato.engine.openai.config import UpstreamConfig
from plato.engine.openai.connection import connect_at_start
from plato.engine.openai.decoder import ServerDecoder
from plato.engine.openai.health import Health
from plato.engine.openai.sequence import UpstreamSequence
from plato.engine.openai.tenancy import SoleTenant
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
HEALTH_INTERVAL_S = 2.0


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
        self._health: Health | None = None
        self._failure: EngineError | None = None
        self._live = LiveSequences[UpstreamSequence]()
        self._sole_tenant = SoleTenant()
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

        Raises `UpstreamError`, too, if the server is away or does not answer as it should.
        """
        self._require_alive()
        self._check(request)
        client = self._start()
        sequence = self._decoder.new_sequence(request)
        self._live.add(sequence)
        try:
            yield self._decoder.chunk(sequence, "")
            if sequence.output.finish is None:
                self._require_alive()
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
        self._require_alive()
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
        return self._decoder.cache.events.snapshot()

    async def take_kv_events(self) -> KVEventBatch | None:
        """Changes of what the server should have cached; see `Engine.take_kv_events`."""
        self._require_alive()
        return self._decoder.cache.events.take()

    async def close(self) -> None:
        """End all sequences, and close the connections. Idempotent."""
        self._fail(EngineClosedError("the engine is shutting down"))
        for task in (*self._watchers, *(s.task for s in self._live)):
            if task is not None:
                await end_task(task)
        if self._client is not None:
            await self._client.close()

    def _start(self) -> UpstreamClient:
        """Create what belongs to the event loop, at the first request."""
        if self._client is None:
            self._client = UpstreamClient(self._config)
            self._health = Health(self._client, self._config)
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

    def _cancel(self, match: Callable[[GenerateRequest], bool]) -> None:
        for sequence in self._live.cancel(match):
            sequence.mailbox.put(self._decoder.chunk(sequence, ""))

    def _fail(self, error: EngineError) -> None:
        """End all sequences with an error, and take no more."""
        self._failure = self._failure or error
        self._live.fail(str(error))

    async def _check_leases(self) -> None:
        if expired := self._live.take_expired():
            logger.warning("lease expired, cancelling the sequences of %s", sorted(expired))
            self._cancel(owned_by(expired))

    async def _check_health(self) -> None:
        """Ask the server whether it is well; after an outage its cache is gone."""
        assert self._health is not None
        try:
            connection = await self._health.check(self._decoder.connection)
        except EngineError as error:
            # It came back as another server.
            logger.error("%s: %s", self._config.url, error)
            self._fail(error)
        else:
            if connection is not None:
                self._decoder.reconnect(connection)

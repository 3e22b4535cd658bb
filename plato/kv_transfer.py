"""Transfers the KV of a prefix from another replica, where that is cheaper than computing it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from plato.engine import Engine, GenerateRequest, KVPiece, Prompt
from plato.engine.prompt import ROOT_HASH
from plato.metrics import NO_METRICS, Recorder
from plato.metrics.table import KV_IMPORT_SECONDS, KV_IMPORTS

logger = logging.getLogger(__name__)

TRANSFER_DEADLINE_S = 2.0
"""After it the prefix is computed."""

Export = Callable[[Prompt, int], Awaitable[KVPiece | None]]
"""Asks the source for the KV of a prompt from a position on."""


class KVTransfer:
    """Transfers prefixes to one engine; requests that need a prefix in flight wait for it.

    Siblings are placed at the same moment. Without waiting, the second one would begin to compute
    the prefix that the first is receiving, and the engine would refuse the transfer.
    """

    def __init__(self, engine: Engine, recorder: Recorder = NO_METRICS) -> None:
        self._engine = engine
        self._recorder = recorder
        self._in_flight: dict[bytes, asyncio.Event] = {}
        """By the hash of the prefix; bounded by the requests that wait here."""

    async def before(self, request: GenerateRequest, export: Export | None) -> int:
        """Transfer what `request` needs, before it is added to the engine.

        `export` asks `request.source`; `None` if there is no such replica. Returns the number of
        tokens transferred. Never raises: what is not transferred is computed.
        """
        awaited = [
            self._in_flight[chain] for chain in request.prompt.hashes if chain in self._in_flight
        ]
        if awaited:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TRANSFER_DEADLINE_S):
                    await awaited[-1].wait()
        if not request.source or export is None:
            return 0
        chain = _prefix_hash(request.prompt, request.source_tokens)
        if chain in self._in_flight:
            # It has just timed out; a second attempt would not be faster.
            return 0
        self._in_flight[chain] = arrived = asyncio.Event()
        try:
            return await fetch_prefix(self._engine, request, export, self._recorder)
        finally:
            del self._in_flight[chain]
            arrived.set()


def _prefix_hash(prompt: Prompt, tokens: int) -> bytes:
    """Hash of the longest chain of segments within the first `tokens` tokens of a prompt.

    The last token of a prompt never counts as cached, so one more token is included.
    """
    length, found = 0, ROOT_HASH
    for chain, segment in zip(prompt.hashes, prompt.segments, strict=True):
        length += len(segment.tokens)
        if length > tokens + 1:
            break
        found = chain
    return found


async def fetch_prefix(
    engine: Engine, request: GenerateRequest, export: Export, recorder: Recorder = NO_METRICS
) -> int:
    """Transfer the part of the prompt that `request.source` has cached and `engine` has not.

    Returns the number of tokens transferred. Never raises: what is not transferred is computed.
    """
    known = engine.cached_prefix(request.prompt)
    if request.source_tokens <= known:
        recorder.add(KV_IMPORTS, outcome="unneeded")
        return 0
    began = time.perf_counter()
    try:
        async with asyncio.timeout(TRANSFER_DEADLINE_S):
            piece = await export(request.prompt, known)
            tokens = await engine.import_kv(request.prompt, piece) if piece is not None else 0
    except Exception as error:
        logger.info(
            "KV transfer from %s failed, computing the prefix: %r",
            request.source,
            error,
            extra={"run": request.run_id, "node": request.node},
        )
        recorder.add(KV_IMPORTS, outcome="failed")
        return 0
    recorder.add(KV_IMPORTS, outcome="taken" if tokens else "missing")
    recorder.observe(KV_IMPORT_SECONDS, time.perf_counter() - began)
    return tokens

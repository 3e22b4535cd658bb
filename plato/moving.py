"""Getting a prefix from the replica that holds it, where that is cheaper than computing it."""

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

MOVE_DEADLINE_S = 2.0
"""Past it the prefix is computed."""

Export = Callable[[Prompt, int], Awaitable[KVPiece | None]]
"""Asks the source for the KV of a prompt from a position on."""


class Imports:
    """The prefixes that an engine gets from others; who needs one that is on its way waits.

    Siblings are placed at the same moment. Without waiting, the second would begin to compute what
    the first is being sent, and what came then would be refused.
    """

    def __init__(self, engine: Engine, recorder: Recorder = NO_METRICS) -> None:
        self._engine = engine
        self._recorder = recorder
        self._coming: dict[bytes, asyncio.Event] = {}
        """By the hash of the prefix; bounded by the requests that wait here."""

    async def before(self, request: GenerateRequest, export: Export | None) -> int:
        """Have what `request` should find, before it is added to the engine.

        `export` asks `request.source`; `None` if there is no such replica. Returns how many tokens
        were imported. Never raises: what does not come is computed.
        """
        coming = [self._coming[chain] for chain in request.prompt.hashes if chain in self._coming]
        if coming:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MOVE_DEADLINE_S):
                    await coming[-1].wait()
        if not request.source or export is None:
            return 0
        chain = _prefix_hash(request.prompt, request.source_tokens)
        if chain in self._coming:
            # It did not come in time; another attempt would fare no better.
            return 0
        self._coming[chain] = arrived = asyncio.Event()
        try:
            return await fetch_prefix(self._engine, request, export, self._recorder)
        finally:
            del self._coming[chain]
            arrived.set()


def _prefix_hash(prompt: Prompt, tokens: int) -> bytes:
    """Hash of the longest chain of segments within the first `tokens` tokens of a prompt.

    The last token of a prompt is never counted as cached, so one more is within.
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
    """Import what `request.source` holds of the prompt and `engine` does not.

    Returns how many tokens were imported. Never raises: what does not come is computed.
    """
    known = engine.cached_prefix(request.prompt)
    if request.source_tokens <= known:
        recorder.add(KV_IMPORTS, outcome="unneeded")
        return 0
    began = time.perf_counter()
    try:
        async with asyncio.timeout(MOVE_DEADLINE_S):
            piece = await export(request.prompt, known)
            tokens = await engine.import_kv(request.prompt, piece) if piece is not None else 0
    except Exception as error:
        logger.info(
            "a prefix did not come from %s and is computed: %r",
            request.source,
            error,
            extra={"run": request.run, "node": request.node},
        )
        recorder.add(KV_IMPORTS, outcome="failed")
        return 0
    recorder.add(KV_IMPORTS, outcome="taken" if tokens else "missing")
    recorder.observe(KV_IMPORT_SECONDS, time.perf_counter() - began)
    return tokens

"""Getting a prefix from the replica that holds it, where that is cheaper than computing it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from plato.engine import Engine, GenerateRequest, KVPiece, Prompt
from plato.metrics import NO_METRICS, Recorder
from plato.metrics.table import KV_IMPORT_SECONDS, KV_IMPORTS

logger = logging.getLogger(__name__)

MOVE_DEADLINE_S = 2.0
"""Past it the prefix is computed."""

Export = Callable[[Prompt, int], Awaitable[KVPiece | None]]
"""Asks the source for the KV of a prompt from a position on."""


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

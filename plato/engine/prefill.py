"""Prefill of the prompts that all requests share, before the first request."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import aclosing

from plato.engine.errors import EngineError
from plato.engine.prompt import Prompt
from plato.engine.protocol import Engine, GenerateRequest

logger = logging.getLogger(__name__)

PREFILL_RUN = "prefill"
"""Run id of these requests."""


async def prefill_public(engine: Engine, prompts: Iterable[Prompt], *, tenants: bool) -> None:
    """Compute prompts that every request shares, so that the first one finds them cached.

    `tenants` tells whether every request is a tenant's, and shares them only where tenants do.
    Does not raise `EngineError`: a prompt that fails here is computed with the first request.
    """
    if not engine.capabilities.token_ids:
        return  # The beginning of a conversation is no conversation.
    if tenants and not engine.capabilities.public_sharing:
        return
    for number, prompt in enumerate(prompts):
        request = GenerateRequest(PREFILL_RUN, number, prompt, max_tokens=1)
        try:
            async with aclosing(engine.generate(request)) as chunks:
                async for _ in chunks:
                    pass
        except EngineError as error:
            logger.warning("prefill of a shared prompt failed at startup: %s", error)

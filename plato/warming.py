"""Computing prompts before anybody asks for them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import aclosing

from plato.engine import Engine, EngineError, GenerateRequest, Prompt

logger = logging.getLogger(__name__)

WARMING_RUN = "warming"


async def prefill_public(engine: Engine, prompts: Iterable[Prompt]) -> None:
    """Compute prompts that every question shares, so that the first one finds them cached.

    Never raises what the engine does: nothing depends on it.
    """
    for number, prompt in enumerate(prompts):
        request = GenerateRequest(WARMING_RUN, number, prompt, max_tokens=1)
        try:
            async with aclosing(engine.generate(request)) as chunks:
                async for _ in chunks:
                    pass
        except EngineError as error:
            logger.warning("a shared prompt was not computed in advance: %s", error)

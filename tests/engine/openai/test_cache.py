"""What is known of a server's cache depends on how it shares prefixes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from plato.engine import PrefixSharing, Prompt, Segment
from plato.engine.capabilities import BUILT_IN
from plato.engine.openai.cache import ServerCache

PROMPT = Prompt((Segment(tuple(range(100))), Segment((1, 2))))


def new_cache(sharing: PrefixSharing) -> ServerCache:
    return ServerCache(replace(BUILT_IN, prefix_sharing=sharing), patience_s=10.0)


@pytest.mark.parametrize("sharing", list(PrefixSharing))
async def test_siblings_wait_only_where_that_helps(sharing: PrefixSharing) -> None:
    cache = new_cache(sharing)
    entered = 0

    async def decode() -> None:
        nonlocal entered
        async with cache.lead(PROMPT):
            entered += 1
            await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(decode()) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert entered == (1 if sharing is PrefixSharing.COMPUTED else 3)
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("sharing", list(PrefixSharing))
def test_a_prompt_can_be_reused_once_it_is_computed_or_its_sequence_has_ended(
    sharing: PrefixSharing,
) -> None:
    cache = new_cache(sharing)
    cache.note_prompt(PROMPT)
    assert cache.cached(PROMPT) == (0 if sharing is PrefixSharing.ENDED else 102)
    cache.note_output(PROMPT, (7, 8))
    assert cache.cached(PROMPT.extended(Segment((7, 8)))) == 103


async def test_tenants_wait_for_each_other_only_where_they_share_what_is_public() -> None:
    public = Segment(tuple(range(100)), public=True)
    prompts = [Prompt((public, Segment((1, 2))), tenant) for tenant in ("one", "two")]
    for shared in (True, False):
        can = replace(BUILT_IN, prefix_sharing=PrefixSharing.COMPUTED, public_sharing=shared)
        cache = ServerCache(can, patience_s=10.0)
        async with cache.lead(prompts[0]):
            second = asyncio.create_task(_enter(cache, prompts[1]))
            await asyncio.sleep(0.01)
            assert second.done() is not shared
        await second


async def _enter(cache: ServerCache, prompt: Prompt) -> None:
    async with cache.lead(prompt):
        pass


def test_every_incarnation_has_an_epoch_of_its_own() -> None:
    assert new_cache(PrefixSharing.ENDED).epoch != new_cache(PrefixSharing.ENDED).epoch

"""Siblings wait for the first of them, for as long as that saves something."""

from __future__ import annotations

import asyncio

import pytest

from plato.engine import Prompt, Segment
from plato.engine.openai.gate import LeaderGate
from tests.engine.waiting import until

SHARED = Segment(tuple(range(100)))


def sibling(number: int, tenant: str = "") -> Prompt:
    return Prompt((SHARED, Segment((number,))), tenant)


class Family:
    """Sequences at a server that computes prompts when a test says so."""

    def __init__(self, patience_s: float = 10.0) -> None:
        self.cached: set[bytes] = set()
        self.begun: list[Prompt] = []
        self.computed = asyncio.Event()
        self.fails = False
        self._gate = LeaderGate(self.cached.__contains__, patience_s)

    async def decode(self, prompt: Prompt) -> None:
        async with self._gate.lead(prompt.hashes) as release:
            self.begun.append(prompt)
            if self.fails:
                raise RuntimeError("the server fell over")
            await self.computed.wait()
            self.cached.update(prompt.hashes)
            release()
            await asyncio.sleep(0.05)


@pytest.fixture
def family() -> Family:
    return Family()


async def test_the_first_goes_alone_and_all_others_together(family: Family) -> None:
    prompts = [sibling(number) for number in range(8)]
    tasks = [asyncio.create_task(family.decode(prompt)) for prompt in prompts]
    await asyncio.sleep(0.01)
    assert family.begun == prompts[:1]
    family.computed.set()
    await asyncio.sleep(0.01)
    assert family.begun == prompts
    await asyncio.gather(*tasks)


async def test_nobody_waits_for_what_is_cached_or_not_shared(family: Family) -> None:
    family.cached.update(sibling(0).hashes)
    prompts = [sibling(0), sibling(1), sibling(1, "tenant"), Prompt((Segment((7,)),))]
    tasks = [asyncio.create_task(family.decode(prompt)) for prompt in prompts]
    await asyncio.sleep(0.01)
    assert family.begun == prompts
    family.computed.set()
    await asyncio.gather(*tasks)


async def test_after_a_leader_that_fails_the_next_one_leads(family: Family) -> None:
    prompts = [sibling(number) for number in range(3)]
    family.fails = True
    results = await asyncio.gather(*map(family.decode, prompts), return_exceptions=True)
    assert [type(result) for result in results] == [RuntimeError] * 3
    family.fails = False
    family.computed.set()
    await family.decode(prompts[0])


async def test_patience_ends() -> None:
    family = Family(patience_s=0.02)
    tasks = [asyncio.create_task(family.decode(sibling(number))) for number in range(2)]
    await until(lambda: len(family.begun) == 2)
    family.computed.set()
    await asyncio.gather(*tasks)

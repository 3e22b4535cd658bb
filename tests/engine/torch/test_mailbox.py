"""Chunks wait for a slow consumer as one chunk, and an error comes after them."""

from __future__ import annotations

import asyncio

import pytest

from plato.engine import Chunk, EngineClosedError, FinishReason
from plato.engine.torch.mailbox import Mailbox


def chunk(offset: int, *tokens: int, **fields: object) -> Chunk:
    text = "".join(f"<{token}>" for token in tokens)
    return Chunk("run", 1, 0, offset, tokens, text, **fields)  # type: ignore[arg-type]


async def test_chunks_come_one_by_one_to_a_quick_consumer() -> None:
    mailbox = Mailbox()
    for offset in range(3):
        mailbox.put(chunk(offset, offset))
        assert await mailbox.get() == chunk(offset, offset)


async def test_waiting_chunks_become_one_with_the_state_of_the_last() -> None:
    mailbox = Mailbox()
    mailbox.put(chunk(4, 10, first=((10, -0.5),), steps=1, cached_tokens=9))
    mailbox.put(chunk(5, 11, 12, steps=2, cached_tokens=9))
    mailbox.put(chunk(7, 13, steps=3, cached_tokens=7, finish=FinishReason.STOP))
    merged = await mailbox.get()
    assert merged == chunk(
        4,
        10,
        11,
        12,
        13,
        first=((10, -0.5),),
        steps=3,
        cached_tokens=7,
        finish=FinishReason.STOP,
    )


async def test_an_error_comes_after_the_chunks_and_stays() -> None:
    mailbox = Mailbox()
    mailbox.put(chunk(0, 1))
    mailbox.put(EngineClosedError("gone"))
    assert (await mailbox.get()).tokens == (1,)
    with pytest.raises(EngineClosedError, match="gone"):
        await mailbox.get()


async def test_a_waiting_consumer_wakes() -> None:
    mailbox = Mailbox()
    waiting = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0)
    mailbox.put(chunk(0, 1))
    assert (await waiting).tokens == (1,)

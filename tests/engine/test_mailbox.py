"""Chunks wait for a slow consumer as one chunk, and an error comes after them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from plato.engine import Chunk, EngineClosedError, FinishReason
from plato.engine.mailbox import Mailbox


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
    mailbox.put(chunk(4, 10, scores=(-0.5,), steps=1, cached_tokens=9))
    mailbox.put(chunk(5, 11, 12, steps=2, cached_tokens=9))
    mailbox.put(chunk(7, 13, steps=3, cached_tokens=7, finish=FinishReason.STOP))
    merged = await mailbox.get()
    assert merged == chunk(
        4,
        10,
        11,
        12,
        13,
        scores=(-0.5,),
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


async def test_what_can_wait_grows_and_what_presses_does_not_wait() -> None:
    mailbox = Mailbox(group_s=30.0)
    mailbox.put(chunk(0, 1))
    assert (await mailbox.get()).tokens == (1,)
    mailbox.put(chunk(1, 2))
    growing = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0.05)
    assert not growing.done()
    mailbox.put(replace(chunk(2, 3), text="the end of a line\n"))
    async with asyncio.timeout(30):
        assert (await growing).tokens == (2, 3)
        mailbox.put(chunk(3, 4, finish=FinishReason.LENGTH))
        assert (await mailbox.get()).tokens == (4,)


async def test_a_chunk_goes_out_after_its_time_and_then_the_next_at_once() -> None:
    mailbox = Mailbox(group_s=0.05)
    mailbox.put(chunk(0, 1))
    await mailbox.get()
    async with asyncio.timeout(30):
        mailbox.put(chunk(1, 2))
        assert (await mailbox.get()).tokens == (2,)
        late = asyncio.create_task(mailbox.get())
        await asyncio.sleep(0.2)
        mailbox.put(chunk(2, 3))
        assert (await late).tokens == (3,)


async def test_sequences_grow_together_so_that_their_chunks_go_out_at_one_time() -> None:
    loop, went_out = asyncio.get_running_loop(), list[float]()

    async def receive(begins_s: float) -> None:
        mailbox = Mailbox(group_s=0.2)
        await asyncio.sleep(begins_s)
        for offset in range(2):
            mailbox.put(chunk(offset, offset))
            await mailbox.get()
        went_out.append(loop.time())

    # The first token at a tick, so that all have the same next one.
    await asyncio.sleep(0.2 - loop.time() % 0.2)
    await asyncio.gather(*(receive(0.02 * number) for number in range(3)))
    assert max(went_out) - min(went_out) < 0.02


async def test_an_error_ends_the_growing() -> None:
    mailbox = Mailbox(group_s=30.0)
    mailbox.put(chunk(0, 1))
    await mailbox.get()
    growing = asyncio.create_task(mailbox.get())
    await asyncio.sleep(0.02)
    mailbox.put(EngineClosedError("gone"))
    with pytest.raises(EngineClosedError, match="gone"):
        async with asyncio.timeout(30):
            await growing


async def test_chunks_from_another_thread_arrive() -> None:
    mailbox = Mailbox(group_s=0.01)
    count = 200

    def send() -> None:
        for offset in range(count):
            last = FinishReason.LENGTH if offset == count - 1 else None
            mailbox.put(chunk(offset, offset, finish=last))

    sending = asyncio.create_task(asyncio.to_thread(send))
    tokens: tuple[int, ...] = ()
    async with asyncio.timeout(30):
        while len(tokens) < count:
            got = await mailbox.get()
            assert got.offset == len(tokens)
            tokens += got.tokens
    await sending
    assert tokens == tuple(range(count))

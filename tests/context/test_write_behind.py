import asyncio
import time

import pytest

from plato.context import MemoryContextStore, WriteBehind

from .examples import NODE, RUN, node, run


class Gate:
    """Holds every write until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.written: list[int] = []

    def write(self, number: int):
        async def write() -> None:
            await self.open.wait()
            self.written.append(number)

        return write


async def test_records_reach_the_store_in_order():
    store = MemoryContextStore()
    writer = WriteBehind()
    fence = await store.acquire("acme", "run-1", "a", 10)
    writer.submit(lambda: store.put_run(run(fence=fence, owner="a")))
    writer.submit(lambda: store.put_node(NODE, fence))
    writer.submit(lambda: store.put_node(node(number=2, text="later"), fence))
    writer.submit(lambda: store.release("acme", "run-1", "a", fence))
    assert await store.get_run("acme", "run-1") is None, "submitting does not write"
    await writer.close()
    assert (await store.get_run("acme", "run-1")).owner == "a"
    assert (await store.get_nodes("acme", "run-1"))[2].text == "later"
    assert not await store.extend("acme", "run-1", "a", fence, 10)
    assert writer.dropped == 0


async def test_writes_reach_a_real_store(redis_store):
    writer = WriteBehind()
    writer.submit(lambda: redis_store.put_run(RUN))
    writer.submit(lambda: redis_store.put_node(NODE, 1))
    await writer.close(5.0)
    assert await redis_store.get_run("acme", "run-1") == RUN
    assert await redis_store.get_nodes("acme", "run-1") == {2: NODE}


async def test_writing_needs_no_close():
    gate = Gate()
    gate.open.set()
    writer = WriteBehind()
    for number in (1, 2):
        writer.submit(gate.write(number))
        await asyncio.sleep(0.01)
    assert gate.written == [1, 2]


async def test_a_full_queue_drops_the_oldest_and_counts_it():
    gate = Gate()
    writer = WriteBehind(capacity=3)
    writer.submit(gate.write(0))
    await asyncio.sleep(0)  # Now it is being written, and the queue is empty.
    for number in range(1, 6):
        writer.submit(gate.write(number))
    assert writer.pending == 3
    assert writer.dropped == 2
    gate.open.set()
    await writer.close()
    assert gate.written == [0, 3, 4, 5]


async def test_closing_ends_at_its_deadline_and_counts_what_is_lost():
    gate = Gate()
    writer = WriteBehind()
    for number in range(4):
        writer.submit(gate.write(number))
    started = time.monotonic()
    await writer.close(0.05)
    assert time.monotonic() - started < 1.0
    assert gate.written == []
    assert writer.dropped == 4
    assert writer.pending == 0
    await writer.close()


async def test_nothing_is_taken_after_closing():
    writer = WriteBehind()
    await writer.close()
    writer.submit(Gate().write(0))
    assert (writer.pending, writer.dropped) == (0, 1)


async def test_a_write_that_raises_does_not_stop_the_others(caplog: pytest.LogCaptureFixture):
    async def broken() -> None:
        raise RuntimeError("broken write")

    gate = Gate()
    gate.open.set()
    writer = WriteBehind()
    writer.submit(broken)
    writer.submit(gate.write(1))
    await writer.close()
    assert gate.written == [1]
    assert writer.dropped == 1
    assert "broken write" in caplog.text

"""What every context store does, in this process or in Valkey."""

import asyncio
from dataclasses import replace

import pytest

from plato.context import MemoryContextStore
from plato.context.protocol import KV_EVENTS_START
from plato.runs import BEFORE_ALL, EventId

from .examples import NODE, RUN, node, run


@pytest.fixture(params=["memory", "redis"])
def store(request):
    if request.param == "memory":
        return MemoryContextStore()
    return request.getfixturevalue("redis_store")


async def test_what_was_never_written_is_missing(store):
    assert await store.get_run("acme", "nothing") is None
    assert await store.get_nodes("acme", "nothing") == {}
    assert await store.read_kv_events("") == ()
    assert store.available


async def test_a_run_comes_back_as_written(store):
    assert await store.put_run(RUN)
    assert await store.get_run(RUN.tenant, RUN.run_id) == RUN


async def test_nodes_come_back_by_number(store):
    second, first = NODE, node(number=1, text="First.")
    assert await store.put_node(second, 1)
    assert await store.put_node(first, 1)
    assert await store.get_nodes("acme", "run-1") == {1: first, 2: second}


async def test_a_node_written_again_replaces_itself(store):
    await store.put_node(node(text="old"), 1)
    await store.put_node(node(text="new"), 1)
    assert [record.text for record in (await store.get_nodes("acme", "run-1")).values()] == ["new"]


async def test_names_that_look_alike_when_joined_stay_apart(store):
    await store.put_run(run("b:c", "a"))
    await store.put_node(node("b:c", "a", text="of a"), 1)
    assert await store.get_run("a:b", "c") is None
    assert await store.get_nodes("a:b", "c") == {}
    assert await store.acquire("a", "b:c", "one", 10)
    assert await store.acquire("a:b", "c", "two", 10)
    assert (await store.get_run("a", "b:c")).tenant == "a"


async def test_a_stale_fence_is_refused_and_changes_nothing(store):
    assert await store.put_run(run(fence=5, owner="new"))
    assert not await store.put_run(run(fence=4, owner="old"))
    assert (await store.get_run("acme", "run-1")).owner == "new"
    assert await store.put_run(run(fence=5, owner="new"))


async def test_an_old_owner_cannot_write_from_the_moment_a_new_one_has_the_lease(store):
    old = await store.acquire("acme", "run-1", "a", 0.02)
    assert await store.put_run(run(fence=old, owner="a"))
    await asyncio.sleep(0.05)
    new = await store.acquire("acme", "run-1", "b", 10)
    assert new > old
    assert not await store.put_run(run(fence=old, owner="a"))
    assert await store.put_run(run(fence=new, owner="b"))
    written, late = node(text="by the new owner"), node(text="by the old one")
    assert await store.put_node(written, new)
    assert not await store.put_node(late, old)
    assert list((await store.get_nodes(late.tenant, late.run_id)).values()) == [written]


async def test_a_run_has_one_owner_at_a_time(store):
    assert await store.acquire("acme", "run-1", "a", 10)
    assert await store.acquire("acme", "run-1", "b", 10) is None


async def test_of_many_that_race_for_a_run_one_wins(store):
    fences = await asyncio.gather(
        *(store.acquire("acme", "run-1", f"owner-{number}", 10) for number in range(20))
    )
    assert len([fence for fence in fences if fence is not None]) == 1


async def test_the_owner_may_acquire_again_and_gets_a_greater_fence(store):
    first = await store.acquire("acme", "run-1", "a", 10)
    second = await store.acquire("acme", "run-1", "a", 10)
    assert second > first
    assert not await store.extend("acme", "run-1", "a", first, 10)


async def test_extending_keeps_the_ownership_past_the_first_lease(store):
    fence = await store.acquire("acme", "run-1", "a", 0.05)
    assert await store.extend("acme", "run-1", "a", fence, 10)
    await asyncio.sleep(0.08)
    assert await store.acquire("acme", "run-1", "b", 10) is None


async def test_a_lease_that_ran_out_is_lost_once_another_has_taken_it(store):
    fence = await store.acquire("acme", "run-1", "a", 0.02)
    await asyncio.sleep(0.05)
    assert await store.extend("acme", "run-1", "a", fence, 0.02)
    await asyncio.sleep(0.05)
    assert await store.acquire("acme", "run-1", "b", 10)
    assert not await store.extend("acme", "run-1", "a", fence, 10)


async def test_nobody_extends_what_nobody_has_acquired(store):
    assert not await store.extend("acme", "run-1", "a", 1, 10)


async def test_a_released_run_can_be_acquired_at_once(store):
    fence = await store.acquire("acme", "run-1", "a", 10)
    await store.release("acme", "run-1", "a", fence)
    assert not await store.extend("acme", "run-1", "a", fence, 10)
    assert await store.acquire("acme", "run-1", "b", 10) > fence


async def test_releasing_what_is_anothers_changes_nothing(store):
    fence = await store.acquire("acme", "run-1", "a", 10)
    await store.release("acme", "run-1", "b", fence)
    await store.release("acme", "run-1", "a", fence - 1)
    assert await store.extend("acme", "run-1", "a", fence, 10)


FIRST, SECOND, THIRD = EventId(1, 5), EventId(1, 9), EventId(2, 0)


async def test_events_are_read_back_in_order_and_behind_an_id(store):
    fence = await store.acquire("acme", "run-1", "a", 10)
    for last, events in ((FIRST, b"one"), (SECOND, b"two"), (THIRD, b"three")):
        assert await store.append_events("acme", "run-1", last, fence, events)
    everything = ((FIRST, b"one"), (SECOND, b"two"), (THIRD, b"three"))
    assert await store.read_events("acme", "run-1", BEFORE_ALL) == everything
    assert await store.read_events("acme", "run-1", FIRST) == everything[1:]
    assert await store.read_events("acme", "run-1", EventId(1, 7)) == everything[1:]
    assert await store.read_events("acme", "run-1", THIRD) == ()
    assert await store.read_events("other", "run-1", BEFORE_ALL) == ()
    assert await store.read_events("acme", "run-2", BEFORE_ALL) == ()


async def test_a_log_that_is_as_far_already_stays_as_it_is(store):
    fence = await store.acquire("acme", "run-1", "a", 10)
    assert await store.append_events("acme", "run-1", SECOND, fence, b"one")
    assert await store.append_events("acme", "run-1", SECOND, fence, b"again")
    assert await store.append_events("acme", "run-1", FIRST, fence, b"before")
    assert await store.read_events("acme", "run-1", BEFORE_ALL) == ((SECOND, b"one"),)


async def test_events_that_must_follow_others_are_not_appended_behind_a_gap(store):
    fence = await store.acquire("acme", "run-1", "a", 10)
    assert await store.append_events("acme", "run-1", FIRST, fence, b"one", after=BEFORE_ALL)
    assert await store.append_events("acme", "run-1", SECOND, fence, b"two", after=FIRST)
    assert not await store.append_events("acme", "run-1", THIRD, fence, b"three", after=FIRST)
    assert not await store.append_events("acme", "run-2", THIRD, fence, b"three", after=SECOND)
    assert await store.append_events("acme", "run-1", THIRD, fence, b"three", after=SECOND)
    assert [last for last, _ in await store.read_events("acme", "run-1", BEFORE_ALL)] == [
        FIRST,
        SECOND,
        THIRD,
    ]


async def test_an_old_owner_appends_nothing(store):
    old = await store.acquire("acme", "run-1", "a", 10)
    new = await store.acquire("acme", "run-1", "b", 10, force=True)
    assert new > old
    assert not await store.append_events("acme", "run-1", FIRST, old, b"old")
    assert await store.append_events("acme", "run-1", FIRST, new, b"new")
    assert await store.read_events("acme", "run-1", BEFORE_ALL) == ((FIRST, b"new"),)


async def test_an_owner_that_was_seen_dying_can_be_replaced_before_its_lease_ends(store):
    old = await store.acquire("acme", "run-1", "a", 10)
    assert await store.acquire("acme", "run-1", "b", 10) is None
    assert await store.acquire("acme", "run-1", "b", 10, force=True) > old
    assert not await store.extend("acme", "run-1", "a", old, 10)


async def test_a_run_whose_owner_is_silent_is_an_orphan_until_somebody_has_it(store):
    fence = await store.acquire("acme", "run:1", "a", 0.05)
    await store.acquire("", "run-2", "a", 10)
    assert await store.orphans() == ()
    await asyncio.sleep(0.08)
    assert await store.orphans() == (("acme", "run:1"),)
    assert await store.extend("acme", "run:1", "a", fence, 10)
    assert await store.orphans() == ()


async def test_a_run_that_was_given_up_or_has_ended_is_no_orphan(store):
    for name in ("released", "forgotten"):
        fence = await store.acquire("acme", name, "a", 0.02)
        if name == "released":
            await store.release("acme", name, "a", fence)
    await asyncio.sleep(0.05)
    assert await store.orphans() == (("acme", "forgotten"),)
    await store.forget("acme", "forgotten")
    assert await store.orphans() == ()


async def test_kv_events_are_read_after_the_last_entry_that_was_seen(store):
    assert await store.read_kv_events(KV_EVENTS_START) == ()
    for number in range(5):
        assert await store.append_kv_events(b"%d" % number)
    assert [entry for _, entry in await store.read_kv_events(KV_EVENTS_START)] == [
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
    ]
    ((last, entry),) = await store.read_kv_events("")
    assert entry == b"4"
    assert await store.read_kv_events(last) == ()
    await store.append_kv_events(b"5")
    await store.append_kv_events(b"6")
    entries = await store.read_kv_events(last)
    assert [entry for _, entry in entries] == [b"5", b"6"]
    assert await store.read_kv_events(entries[0][0]) == entries[1:]


def created(number, tenant="acme", **fields):
    return replace(run(f"run-{number}", tenant), created_unix_s=100.0 + number, **fields)


async def test_runs_are_listed_newest_first(store):
    for number in (2, 1, 3):
        await store.put_run(created(number))
    await store.put_run(created(4, "other"))

    async def listed(*arguments):
        return [record.run_id for record in await store.list_runs("acme", *arguments)]

    assert await listed() == ["run-3", "run-2", "run-1"]
    assert await listed(None, 2) == ["run-3", "run-2"]
    assert await listed("run-2") == ["run-1"]
    assert await listed("run-1") == await listed("none") == []
    assert await store.list_runs("nobody") == ()
    # A change of an old run leaves it where it is.
    await store.put_run(created(1, state="done"))
    assert await listed() == ["run-3", "run-2", "run-1"]
    (_, _, oldest) = await store.list_runs("acme")
    assert oldest.state == "done"

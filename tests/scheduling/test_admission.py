"""Who gets a place, who waits, and who is told to come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plato.errors import OverloadedError, PlatoError, RateLimitError, UnavailableError
from plato.scheduling.admission import Admission

pytestmark = pytest.mark.hostile


def admission(**fields: Any) -> Admission:
    return Admission(**{"max_running": 2, "max_waiting": 4, "patience_s": 5.0, **fields})


@asynccontextmanager
async def admitted(door: Admission, tenant: str) -> AsyncIterator[None]:
    """A place while the context lasts."""
    await door.enter(tenant)
    try:
        yield
    finally:
        door.leave(tenant)


class Guest:
    """A run that wants a place, and keeps it until it is told to go."""

    def __init__(self, door: Admission, tenant: str = "") -> None:
        self.inside = False
        self.error: PlatoError | None = None
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(door, tenant))

    async def _visit(self, door: Admission, tenant: str) -> None:
        try:
            async with admitted(door, tenant):
                self.inside = True
                await self._leave.wait()
        except PlatoError as error:
            self.error = error
        finally:
            self.inside = False

    async def leave(self) -> None:
        self._leave.set()
        await self.task


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_as_many_run_as_there_are_places_and_the_next_waits_for_one() -> None:
    door = admission()
    first, second, third = (Guest(door) for _ in range(3))
    await settle()
    assert (first.inside, second.inside, third.inside) == (True, True, False)
    assert (door.running, door.waiting) == (2, 1)
    await first.leave()
    await settle()
    assert third.inside
    await second.leave()
    await third.leave()
    assert (door.running, door.waiting) == (0, 0)


async def test_past_the_bound_of_those_that_wait_it_refuses_at_once() -> None:
    door = admission(max_waiting=1)
    guests = [Guest(door) for _ in range(4)]
    await settle()
    error = guests[3].error
    assert isinstance(error, OverloadedError)
    assert error.status == 429
    assert error.retry_after_s
    guests[2].task.cancel()
    await settle()
    assert door.waiting == 0
    for guest in guests[:2]:
        await guest.leave()


async def test_who_has_waited_too_long_is_told_to_come_back() -> None:
    door = admission(max_running=1, patience_s=0.05)
    first, second = Guest(door), Guest(door)
    await second.task
    assert isinstance(second.error, OverloadedError)
    assert door.waiting == 0
    await first.leave()


async def test_a_tenant_with_many_questions_does_not_shut_the_others_out() -> None:
    door = admission(max_running=2, max_waiting=100)
    loud = [Guest(door, "loud") for _ in range(10)]
    await settle()
    quiet = Guest(door, "quiet")
    await settle()
    assert not quiet.inside
    await loud[0].leave()
    await settle()
    assert quiet.inside
    assert sum(guest.inside for guest in loud) == 1
    for guest in (*loud, quiet):
        await guest.leave()


async def test_the_last_places_are_for_who_has_none() -> None:
    door = admission(max_running=16, max_waiting=100)
    loud = [Guest(door, "loud") for _ in range(20)]
    await settle()
    assert sum(guest.inside for guest in loud) == 14
    quiet, other, again = Guest(door, "quiet"), Guest(door, "other"), Guest(door, "quiet")
    await settle()
    assert (quiet.inside, other.inside, again.inside) == (True, True, False)
    assert door.running == 16
    for guest in (quiet, other):
        await guest.leave()
    assert door.running == 15, "the second question of a tenant that had none any more"
    for guest in (*loud, again):
        await guest.leave()
    assert (door.running, door.waiting) == (0, 0)


async def test_without_room_for_many_a_tenant_without_a_run_gets_in() -> None:
    door = admission(max_running=8, max_waiting=100, room=lambda: False)
    loud = [Guest(door, "loud") for _ in range(3)]
    quiet = Guest(door, "quiet")
    await settle()
    assert [guest.inside for guest in loud] == [True, False, False]
    assert quiet.inside
    for guest in (*loud, quiet):
        await guest.leave()


async def test_a_full_queue_refuses_the_newest_of_who_has_most() -> None:
    door = admission(max_running=2, max_waiting=4)
    loud = [Guest(door, "loud") for _ in range(6)]
    await settle()
    quiet = Guest(door, "quiet")
    await settle()
    assert quiet.error is None
    assert isinstance(loud[5].error, OverloadedError)
    assert [guest.error for guest in loud[:5]] == [None] * 5
    # One more of whoever has most by then is refused itself, and whoever runs goes on.
    late = Guest(door, "loud")
    await settle()
    assert isinstance(late.error, OverloadedError)
    assert sum(guest.inside for guest in loud) == 2
    assert (door.running, door.waiting) == (2, 4)
    await loud[0].leave()
    await settle()
    assert quiet.inside
    for guest in (*loud[1:5], quiet):
        await guest.leave()
    assert (door.running, door.waiting) == (0, 0)


async def test_tenants_take_turns_and_the_runs_of_each_come_in_order() -> None:
    door = admission(max_running=1, max_waiting=100)
    order: list[str] = []

    async def visit(name: str, tenant: str) -> None:
        async with admitted(door, tenant):
            order.append(name)
            await asyncio.sleep(0)

    names = ["a1", "a2", "a3", "b1", "b2", "c1"]
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(visit(name, name[0]))
    assert order == ["a1", "a2", "b1", "c1", "a3", "b2"]


async def test_without_room_in_the_decoders_only_one_runs() -> None:
    room = False
    door = admission(max_running=8, room=lambda: room, patience_s=0.1)
    first, second = Guest(door), Guest(door)
    await settle()
    assert (first.inside, second.inside) == (True, False)
    await second.task
    assert isinstance(second.error, UnavailableError)
    assert second.error.retry_after_s
    third = Guest(door)
    await settle()
    room = True
    door.recheck()
    await settle()
    assert third.inside
    await first.leave()
    await third.leave()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("come"), st.sampled_from("abc")),
            st.tuples(st.sampled_from(["leave", "give up"]), st.integers(0, 30)),
        ),
        max_size=40,
    )
)
def test_whatever_comes_and_goes_the_bounds_hold_and_no_place_is_lost(
    steps: list[tuple[str, Any]],
) -> None:
    async def play() -> None:
        door = admission(max_running=3, max_waiting=4)
        async with AsyncExitStack():
            guests: list[Guest] = []
            for kind, value in steps:
                if kind == "come":
                    guests.append(Guest(door, value))
                elif guests:
                    guest = guests[value % len(guests)]
                    if kind == "leave" and guest.inside:
                        await guest.leave()
                    elif kind == "give up":
                        guest.task.cancel()
                await settle()
                inside = Counter(guest.inside for guest in guests)[True]
                assert inside == door.running <= 3
                assert door.waiting <= 4
                # Nobody waits beside an empty place.
                assert not door.waiting or door.running == 3
            for guest in guests:
                guest.task.cancel()
            for guest in guests:
                with suppress(asyncio.CancelledError):
                    await guest.task
            assert (door.running, door.waiting) == (0, 0)

    asyncio.run(play())


async def test_a_tenant_may_have_so_many_runs_and_no_more_wait() -> None:
    door = admission(max_running=1, max_tenant=2)
    inside, waiting = Guest(door, "loud"), Guest(door, "loud")
    await settle()
    assert (inside.inside, waiting.inside) == (True, False)
    refused, other = Guest(door, "loud"), Guest(door, "quiet")
    await settle()
    assert isinstance(refused.error, RateLimitError)
    assert refused.error.retry_after_s
    assert other.error is None
    await inside.leave()
    await other.leave()
    again = Guest(door, "loud")
    await settle()
    assert again.error is None
    await waiting.leave()
    await again.leave()

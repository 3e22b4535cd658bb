"""Runs as the context store has them: replayed, and listed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from plato.context import MemoryContextStore, NodeRecord, RunRecord
from plato.context.records import pack
from plato.errors import UnavailableError
from plato.runs import BEFORE_ALL, Mode, RunPage, RunState
from plato.scheduling.ownership.stored_runs import MAX_LISTED, StoredRuns
from tests.runs.examples import (
    STOP,
    chosen,
    encode,
    output,
    plan_finished,
    planned,
    request,
    with_ids,
)

TENANT = "t"


async def test_a_finished_node_that_the_log_lacks_is_kept_when_the_run_is_written_again() -> None:
    asked, store = request(mode=Mode.SEQUENTIAL), MemoryContextStore()
    record = NodeRecord(asked.run_id, asked.tenant, 1, encode("answer"), "answer", "stop", "d", "e")
    await store.put_node(record, 1)
    events = chosen(Mode.SEQUENTIAL), planned(1), plan_finished(), output(1, "ans")
    state = RunState(asked, with_ids(events))
    await StoredRuns(store, "").add_finished_nodes(state)
    # Whoever reads a log leaves out what it has: nothing is before all.
    read = [event for event in state.events() if event.id > BEFORE_ALL]
    again = RunState(asked, read)
    for found in (state, again):
        assert (found.nodes[1].text, found.nodes[1].finish) == ("answer", STOP)


class CountingStore(MemoryContextStore):
    """Notes how many runs each list asks for."""

    def __init__(self) -> None:
        super().__init__(max_runs=5000)
        self.reads: list[int] = []
        self.reachable = True

    @property
    def available(self) -> bool:
        return self.reachable

    async def list_runs(
        self, tenant: str, before: str | None = None, limit: int = 20
    ) -> tuple[RunRecord, ...]:
        self.reads.append(limit)
        return await super().list_runs(tenant, before, limit) if self.reachable else ()


async def store_of(states: Sequence[str]) -> CountingStore:
    """A store with a run in each of these states, newest first; their ids are their indexes."""
    store = CountingStore()
    for number, state in enumerate(states):
        asked = request(run_id=str(number), tenant=TENANT)
        await store.put_run(
            RunRecord(
                run_id=asked.run_id,
                tenant=TENANT,
                owner="s:1",
                fence=1,
                mode=asked.mode,
                state=state,
                nodes=(),
                plan_complete=True,
                request=pack(asked),
                created_unix_s=-number,
            )
        )
    return store


def ids(page: RunPage) -> list[str]:
    return [overview.request.run_id for overview in page.runs]


async def test_a_page_says_from_where_the_list_continues() -> None:
    runs = StoredRuns(await store_of(["done", "failed", "done", "failed", "done"]), "")
    first = await runs.overviews(TENANT, None, 2, "done")
    assert (ids(first), first.next_before) == (["0", "2"], "3")
    rest = await runs.overviews(TENANT, first.next_before, 2, "done")
    assert (ids(rest), rest.next_before) == (["4"], None)
    whole = await runs.overviews(TENANT, None, 5, None)
    assert (len(whole.runs), whole.next_before) == (5, None)


async def test_few_runs_among_many_are_found_page_by_page() -> None:
    store = await store_of(["done"] * (MAX_LISTED + 1) + ["failed"])
    runs = StoredRuns(store, "")
    cut = await runs.overviews(TENANT, None, 1, "failed")
    assert (ids(cut), cut.next_before) == ([], str(MAX_LISTED - 1))
    # However small the page.
    assert store.reads == [100] * 20
    rest = await runs.overviews(TENANT, cut.next_before, 1, "failed")
    assert (ids(rest), rest.next_before) == ([str(MAX_LISTED + 1)], None)


async def test_a_list_does_not_end_where_the_store_is_lost() -> None:
    store = await store_of(["done"])
    store.reachable = False
    with pytest.raises(UnavailableError, match="runs cannot be listed"):
        await StoredRuns(store, "").overviews(TENANT, None, 20, None)

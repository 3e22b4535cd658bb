"""What a scheduler adds to a run's log from the records of its nodes."""

from __future__ import annotations

from plato.context import MemoryContextStore, NodeRecord
from plato.runs import BEFORE_ALL, Mode, RunState
from plato.scheduling.ownership.stored_runs import StoredRuns
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

"""What is exported of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from plato.api.runs.events import describe_event
from plato.api.runs.object import RunObject
from plato.runs import NodeReport, NodeStarted, RunEvent


@dataclass(slots=True)
class Recording:
    """A run that has ended, and its events."""

    run: RunObject
    events: list[RunEvent] = field(default_factory=list)
    """Without the last one, which is the run's end."""

    @property
    def nodes(self) -> tuple[NodeReport, ...]:
        """The parts, in plan order."""
        return self.run.plato.graph.nodes

    def taken_s(self, number: int) -> float | None:
        """When a decoder took a part, for the last time."""
        times = [
            event.at_s
            for event in self.events
            if isinstance(event, NodeStarted) and event.number == number
        ]
        return times[-1] if times else None

    def as_json(self) -> dict[str, Any]:
        """The run and its events as JSON values, as the server sends them."""
        run = self.run.model_dump(mode="json")
        ended = "run_finished" if self.run.status == "done" else "run_failed"
        events = [described for event in self.events if (described := describe_event(event))]
        return {"run": run, "events": [*events, {"type": ended, "run": run}]}

"""What decodes at a replica, as one run sees it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from plato.engine.step_times import StepCurve


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The batch that a sequence of a run would join."""

    width: int
    """Sequences that decode or wait there."""
    places: int
    """Sequences that can decode there side by side; 0: unknown."""
    others: int
    """Other runs there."""
    single: bool
    """Whether one of them has only one sequence there, as far as is known."""
    times: StepCurve
    """Of the steps there."""
    prefill_s: float = 0.0
    """Seconds that each prompt token adds to a step; 0: not known."""

    def with_runs(self, others: int) -> Neighbours:
        """With at least so many other runs, of which nothing more is known."""
        if others <= self.others:
            return self
        return replace(self, width=max(self.width, others), others=others, single=True)

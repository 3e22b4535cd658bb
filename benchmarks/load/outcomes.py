"""What became of the questions."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.answering.questions import Question
from benchmarks.load.arrivals import is_short


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one question. Times are in seconds, since it was due."""

    question: Question
    due_s: float
    """Since the first question."""
    late_s: float
    """When it was asked."""
    latency_s: float
    first_text_s: float = 0.0
    tokens: int = 0
    planned: bool = False
    refused: bool = False
    """Whether the system had too much to do for it."""
    failure: str | None = None
    """Why there is no answer, unless it was refused."""

    @property
    def answered(self) -> bool:
        """Whether there is a complete answer."""
        return not self.refused and self.failure is None

    @property
    def short(self) -> bool:
        """Whether the question is one that no way splits."""
        return is_short(self.question)

    @property
    def token_s(self) -> float:
        """Time per output token after the first text."""
        return (self.latency_s - self.first_text_s) / max(1, self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Played:
    """One measurement: outcomes of all its questions, none of which is left out."""

    outcomes: tuple[Outcome, ...]
    cpu_share: float
    """Of one processor, that the thread took which asks; in process also the scheduler's part."""

    @property
    def makespan_s(self) -> float:
        """From the first question to the end of the last answer."""
        return max(one.due_s + one.latency_s for one in self.outcomes)

"""What became of the questions."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.answering.questions import Question
from benchmarks.load.arrivals import is_short

FILLING = 0.25
"""Share of the window in which questions arrive, until the system has filled."""


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

    def tokens_until(self, at_s: float) -> float:
        """Tokens of a complete answer until `at_s` since the first question, spread evenly."""
        shown_s = at_s - self.due_s - self.first_text_s
        if not self.answered or shown_s < 0:
            return 0.0
        takes_s = self.latency_s - self.first_text_s
        return self.tokens * min(shown_s, takes_s) / takes_s if takes_s else self.tokens


@dataclass(frozen=True, slots=True)
class Played:
    """One measurement: outcomes of all its questions, none of which is left out."""

    outcomes: tuple[Outcome, ...]
    cpu_share: float
    """Of one processor, that the thread took which asks; in process also the scheduler's part."""

    @property
    def window_s(self) -> float:
        """From the first question to the last."""
        return max(one.due_s for one in self.outcomes)

    @property
    def makespan_s(self) -> float:
        """From the first question to the end of the last answer."""
        return max(one.due_s + one.latency_s for one in self.outcomes)

    @property
    def tokens_per_s(self) -> float:
        """Answer tokens a second from when the system has filled until the last question.

        What is answered after it has the system more and more to itself.
        """
        filled_s = FILLING * self.window_s
        tokens = (
            one.tokens_until(self.window_s) - one.tokens_until(filled_s) for one in self.outcomes
        )
        return sum(tokens) / (self.window_s - filled_s)

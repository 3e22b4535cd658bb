"""The live sequences of an engine: who they belong to, and what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from plato.engine.errors import EngineClosedError
from plato.engine.leases import Leases
from plato.engine.mailbox import Mailbox
from plato.engine.output import Output
from plato.engine.protocol import FinishReason, GenerateRequest


class LiveSequence(Protocol):
    """A sequence that is computed elsewhere."""

    output: Output
    mailbox: Mailbox
    prefill_tokens: int
    """Prompt tokens that should still have to be computed."""

    @property
    def request(self) -> GenerateRequest:
        """What was asked for."""
        ...

    def stop(self) -> None:
        """Have nothing more computed."""
        ...


S = TypeVar("S", bound=LiveSequence)


class LiveSequences(Generic[S]):
    """From `add` to `remove`; whoever adds a sequence removes it.

    Bounded by the engine: a sequence that finds no place is removed at once.
    """

    def __init__(self) -> None:
        self._sequences: set[S] = set()
        self._leases = Leases()
        self.prefill_tokens = 0
        """Prompt tokens that should still have to be computed."""
        self.held_tokens = 0
        """Prompt tokens and token budgets."""

    def __iter__(self) -> Iterator[S]:
        return iter(tuple(self._sequences))

    def __len__(self) -> int:
        return len(self._sequences)

    @property
    def runs(self) -> int:
        """The number of runs that those are of which have not ended."""
        live = (sequence for sequence in self._sequences if sequence.output.finish is None)
        return len({sequence.request.run_id for sequence in live})

    def add(self, sequence: S) -> None:
        """A sequence arrives."""
        self._sequences.add(sequence)
        self._leases.grant(sequence.request.lease)
        self.prefill_tokens += sequence.prefill_tokens
        self.held_tokens += _budget(sequence.request)

    def note_prefilled(self, sequence: S) -> None:
        """The prompt of a sequence has been computed."""
        self.prefill_tokens -= sequence.prefill_tokens
        sequence.prefill_tokens = 0

    def remove(self, sequence: S) -> None:
        """A sequence has ended, or nobody reads it any more. Idempotent."""
        if sequence not in self._sequences:
            return
        self._sequences.remove(sequence)
        self._leases.retain({_owner(other.request) for other in self._sequences})
        self.prefill_tokens -= sequence.prefill_tokens
        self.held_tokens -= _budget(sequence.request)

    def renew(self, owner: str, ttl_s: float) -> None:
        """See `Leases.renew`."""
        self._leases.renew(owner, ttl_s)

    def take_expired(self) -> frozenset[str]:
        """See `Leases.take_expired`."""
        return self._leases.take_expired()

    def cancel(self, match: Callable[[GenerateRequest], bool]) -> list[S]:
        """Cancel sequences; returns those that have yet to tell their consumers."""
        cancelled = [s for s in self if s.output.finish is None and match(s.request)]
        for sequence in cancelled:
            sequence.output.finish = FinishReason.CANCELLED
            sequence.stop()
        return cancelled

    def fail(self, reason: str) -> None:
        """End all sequences with an error."""
        for sequence in self:
            sequence.mailbox.put(EngineClosedError(reason))
            sequence.stop()


def owned_by(owners: frozenset[str]) -> Callable[[GenerateRequest], bool]:
    """Whether a request has a lease of one of these owners."""
    return lambda request: _owner(request) in owners


def _owner(request: GenerateRequest) -> str | None:
    return None if request.lease is None else request.lease.owner


def _budget(request: GenerateRequest) -> int:
    return len(request.prompt) + request.max_tokens

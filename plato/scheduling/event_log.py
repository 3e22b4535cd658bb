"""The events of one run, and their followers."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace

from plato.errors import SlowConsumerError
from plato.runs import (
    EventId,
    Mode,
    ModeChosen,
    NodeCancelled,
    NodeOutput,
    NodeReport,
    NodeState,
    RunEvent,
    RunEvents,
    RunReport,
    RunState,
)
from plato.runs.composer import Composer
from plato.scheduling.ownership.journal import Journal

MAX_EVENTS_BEHIND = 4096
"""A follower that lags further behind is dropped. A read returns all pending events, so only one
that has stopped reading lags this far."""
HIDDEN_S = 0.4
"""Output that makes no text visible waits for so long for other events, to be sent with them: a
message to a follower costs about as much as all other work for it."""


@dataclass(eq=False, slots=True)
class _Follower:
    read: int
    """Number of events it has read or skipped."""
    joined: int
    """Number of events when it joined."""
    dropped: bool = False


class EventLog:
    """Feeds a run's events to its state, composer and journal, and wakes its followers.

    Appending never waits, so no follower can slow the run. Events are bounded by the token budgets
    of the run's nodes.
    """

    def __init__(
        self, state: RunState, journal: Journal, decode: Callable[[tuple[int, ...]], str], term: int
    ) -> None:
        """Continue after the events of `state`, in `term`; `decode` is the composer's."""
        self.state = state
        self.composer = Composer(state, decode)
        self.on_complete: Callable[[], None] = lambda: None
        """Called when the answer is complete while nodes are still being decoded."""
        self.conversation_tokens = 0
        """For the report; set before the first node starts."""
        self._journal = journal
        self._events: list[RunEvent] = list(state.events())
        """Events of previous schedulers, condensed, then all events of this one."""
        self._restored = len(self._events)
        self._restored_id = state.last_id
        self._next_id = EventId(term, 0)
        self._unsent = ""
        """Released text that no event carries yet."""
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time() - state.at_s
        self._followers: set[_Follower] = set()
        self._news = asyncio.Event()
        self._waking: asyncio.TimerHandle | None = None
        """Wakes the followers for output that has waited long enough."""

    @property
    def at_s(self) -> float:
        """Seconds since the run started, also if another scheduler started it."""
        return self._loop.time() - self._started

    @property
    def followed(self) -> bool:
        """Whether the run has a follower."""
        return bool(self._followers)

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self.state.ended is not None

    @property
    def events(self) -> Sequence[RunEvent]:
        """All events, those of previous schedulers condensed."""
        return self._events

    @property
    def stamp(self) -> tuple[str, float]:
        """`run_id` and `at_s` of an event that happens now."""
        return self.state.request.run_id, self.at_s

    def choose_mode(self, mode: Mode, reason: str | None = None) -> None:
        """Report the mode, unless it was reported before; from here on the run is recorded."""
        if self.state.mode is None:
            self._journal.open()
            self.append(ModeChosen(*self.stamp, mode, reason))

    def append(self, event: RunEvent) -> None:
        """Assign the event its id and the text that it releases, and publish it."""
        event = replace(event, id=self._next_id)
        self._next_id = EventId(event.id.term, event.id.number + 1)
        self.state.feed(event)
        self.compose()
        text, self._unsent = self._unsent, ""
        begins = self.state.text_bytes - len(text.encode())
        event = replace(event, text=text, text_offset=begins)
        self._events.append(event)
        self._journal.append(event)
        for follower in tuple(self._followers):
            if len(self._events) - max(follower.read, follower.joined) > MAX_EVENTS_BEHIND:
                follower.dropped = True
                self._followers.discard(follower)
        if text or not isinstance(event, NodeOutput):
            self._wake()
        elif self._waking is None:
            self._waking = self._loop.call_later(HIDDEN_S, self._wake)
        if self.composer.done and not self.ended and not self.state.settled:
            self.on_complete()

    def _wake(self) -> None:
        """Have the followers read."""
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        self._news.set()
        self._news = asyncio.Event()

    def cancel_open(self) -> None:
        """Report all nodes that have not ended as cancelled."""
        for number, node in sorted(self.state.nodes.items()):
            if node.report.state.open:
                report = replace(node.report, state=NodeState.CANCELLED)
                self.append(NodeCancelled(*self.stamp, number, report))

    def compose(self) -> None:
        """Compose newly visible text for the next event to carry; released text is not repeated."""
        begins = self.composer.released_bytes
        self._unsent += self.state.release(self.composer.advance(), begins)

    def report(self, degraded: tuple[str, ...], losses: tuple[str, ...] = ()) -> RunReport:
        """The report of a run that ends now."""
        report = self.state.report()
        return replace(
            report,
            nodes=tuple(map(self._ended_node, report.nodes)),
            duration_s=self.at_s,
            conversation_tokens=self.conversation_tokens,
            answer_tokens=self.composer.tokens,
            finish_reason=self.composer.finish_reason,
            degraded=degraded,
            losses=losses,
        )

    def _ended_node(self, node: NodeReport) -> NodeReport:
        return replace(
            node,
            answer_tokens=self.composer.node_tokens(node.number),
            cut=self.composer.cut(node.number),
        )

    async def follow(
        self, after: EventId, heartbeat_s: float | None = None
    ) -> AsyncGenerator[RunEvents]:
        """Events with ids above `after`, in batches, until the run has ended.

        Yields an empty batch whenever `heartbeat_s` has passed without an event. Raises
        `SlowConsumerError` if the consumer lags by more than `MAX_EVENTS_BEHIND`.
        """
        read = 0
        # Restored events are condensed: a follower that lacks one of them gets all.
        if after >= self._restored_id:
            read = bisect_right(self._events, after, lo=self._restored, key=lambda event: event.id)
        follower = _Follower(read, len(self._events))
        self._followers.add(follower)
        try:
            while True:
                news = self._news
                if follower.dropped:
                    raise SlowConsumerError(
                        f"more than {MAX_EVENTS_BEHIND} events were not read in time; reconnect "
                        "with Last-Event-ID"
                    )
                if follower.read < len(self._events):
                    batch = tuple(self._events[follower.read :])
                    follower.read = len(self._events)
                    yield batch
                elif self.ended:
                    return
                elif not await _wait(news, heartbeat_s):
                    yield ()
        finally:
            self._followers.discard(follower)


async def _wait(news: asyncio.Event, timeout_s: float | None) -> bool:
    """Whether the event was set in time."""
    try:
        async with asyncio.timeout(timeout_s):
            await news.wait()
    except TimeoutError:
        return False
    return True

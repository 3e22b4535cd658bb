"""How much may be in progress at the same time, in all and by tenant.

The limits are those of one process: of each ingress, or of the server in one process. Health and
metrics are outside of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from plato.errors import RateLimitError, UnavailableError
from plato.settings import Settings

RETRY_AFTER_S = 1.0


class Slots:
    """Slots for what is in progress, in all and for each key."""

    def __init__(self, most: int, most_by_key: int, refusal: str) -> None:
        """`refusal` tells the holder of a key that it has `most_by_key`, and what to do."""
        self._most = most
        self._most_by_key = most_by_key
        self._refusal = refusal
        self._taken: Counter[str] = Counter()
        """By key; keys without a slot are dropped."""

    @contextmanager
    def take(self, key: str) -> Iterator[None]:
        """Take a slot. Raises `RateLimitError` or `UnavailableError` if there is none."""
        if self._taken[key] >= self._most_by_key:
            raise RateLimitError(self._refusal, retry_after_s=RETRY_AFTER_S)
        if self._taken.total() >= self._most:
            raise UnavailableError(
                "too many requests in progress; try again in a moment",
                retry_after_s=RETRY_AFTER_S,
            )
        self._taken[key] += 1
        try:
            yield
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]


class Limits:
    """The slots of one process.

    Event streams of runs have slots of their own: those that nobody reads keep no question out.
    """

    def __init__(self, settings: Settings) -> None:
        most = settings.max_requests
        by_tenant = settings.max_tenant_requests
        self._requests = Slots(
            most,
            by_tenant,
            f"{by_tenant} requests of this API key are in progress; wait for one of them to end",
        )
        answers = by_tenant
        if settings.max_tenant_runs is not None:
            answers = min(answers, settings.max_tenant_runs * settings.schedulers)
        self._questions = Slots(
            most,
            answers,
            f"{answers} answers of this API key are in progress, as many as it may have; wait for "
            "one of them to end",
        )
        by_tenant, by_run = settings.max_tenant_followers, settings.max_run_followers
        poll = "close one of them, or poll GET /v1/runs/{id}"
        self._followers = Slots(
            most, by_tenant, f"{by_tenant} event streams of this API key are open; {poll}"
        )
        self._run_followers = Slots(
            most, by_run, f"{by_run} event streams of this run are open; {poll}"
        )

    def request(self, tenant: str) -> ExitStack:
        """Take the slot of a request, until the result is closed."""
        with ExitStack() as held:
            held.enter_context(self._requests.take(tenant))
            return held.pop_all()

    def question(self, tenant: str) -> ExitStack:
        """Take the slot of a request that asks for an answer, until the result is closed.

        Of these a tenant has as many as it may have runs: schedulers refuse more, but only after a
        request was parsed and its prompt built.
        """
        with ExitStack() as held:
            held.enter_context(self._requests.take(tenant))
            held.enter_context(self._questions.take(tenant))
            return held.pop_all()

    def follower(self, tenant: str, run_id: str) -> ExitStack:
        """Take the slot of a run's event stream, until the result is closed."""
        with ExitStack() as held:
            held.enter_context(self._followers.take(tenant))
            held.enter_context(self._run_followers.take(f"{tenant}/{run_id}"))
            return held.pop_all()

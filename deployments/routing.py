"""Request routing: to the replica chosen by the scheduler's placement."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from deployments.membership import set_replicas


class PlacedRouter(RequestRouter):
    """Routes to the replica in the call's `replica` argument; without one, to the least busy.

    `replica` is a name, or names in the order of a placement's ranking. If none of them is running
    and has room, another is used: placement is an optimisation. Deliberately without Serve's FIFO
    mixin, which can assign a replica found for one request to another.
    """

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Publish the list that placement chooses from."""
        super().update_replicas(replicas)
        names = tuple(sorted(replica.replica_id.unique_id for replica in replicas))
        set_replicas(self._deployment_id.name, names)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Rank the named replicas first, then all others. Never awaits: calls stay parallel."""
        if pending_request is None:
            return [candidate_replicas]
        # Without this, Serve retries immediately, and spins while every replica is full.
        pending_request.routing_context.should_backoff = True
        wanted = _wanted(pending_request.kwargs)
        by_name = {r.replica_id.unique_id: r for r in candidate_replicas}
        named = [[by_name.pop(name)] for name in wanted if name in by_name]
        return [ranked for ranked in (*named, list(by_name.values())) if ranked]


def _wanted(kwargs: dict[Any, Any]) -> tuple[str, ...]:
    replica = kwargs.get("replica") or ()
    return (replica,) if isinstance(replica, str) else tuple(replica)

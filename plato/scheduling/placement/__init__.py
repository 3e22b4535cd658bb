"""Choosing the replica for a sequence.

`policy` is the interface of a policy and `kv_aware` the default one; `replicas` holds what is known
of the replicas, with `state` for one of them and `index` for their KV; `placement` asks the policy.
"""

from plato.scheduling.placement.index import KVIndex
from plato.scheduling.placement.kv_aware import KVAware
from plato.scheduling.placement.placement import Choice, Placement
from plato.scheduling.placement.policy import PlacementRequest, Policy, ReplicaView
from plato.scheduling.placement.replicas import ReplicaTable
from plato.scheduling.placement.state import Booking

__all__ = [
    "Booking",
    "Choice",
    "KVAware",
    "KVIndex",
    "Placement",
    "PlacementRequest",
    "Policy",
    "ReplicaTable",
    "ReplicaView",
]

"""Choosing the replica for a sequence: where its prefix lies, unless waiting there costs more.

`views` is what a decision sees, `policies` are the decisions (pure functions), `index` knows what
lies where, `state` what is known of a replica, and `placement` keeps both between decisions.
"""

from plato.scheduling.placement.index import KVIndex
from plato.scheduling.placement.placement import Choice, Placement
from plato.scheduling.placement.policies import POLICIES, kv_aware
from plato.scheduling.placement.state import Booking
from plato.scheduling.placement.views import Ask, ReplicaView

__all__ = [
    "POLICIES",
    "Ask",
    "Booking",
    "Choice",
    "KVIndex",
    "Placement",
    "ReplicaView",
    "kv_aware",
]

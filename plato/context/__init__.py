"""The context store: node outputs, runs and KV events, in Redis or Valkey.

`protocol` is the contract. `redis` (behind `breaker`) is the store shared between processes, in the
format of `records` and `keys`; `memory` is a store inside one process; `write_behind` queues writes
so that callers do not wait; `embedded` starts a Valkey server. The package itself imports neither
redis nor msgpack: import `plato.context.redis`, `.records` and `.embedded` by name.
"""

from plato.breaker import CircuitBreaker
from plato.context.memory import MemoryContextStore
from plato.context.protocol import ContextStore, NodeRecord, RunRecord
from plato.context.write_behind import WriteBehind

__all__ = [
    "CircuitBreaker",
    "ContextStore",
    "MemoryContextStore",
    "NodeRecord",
    "RunRecord",
    "WriteBehind",
]

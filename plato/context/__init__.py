"""The context store: node outputs, runs and KV events, in Redis or Valkey.

`protocol` is the contract. `redis` (behind `breaker`) is the store that is shared between
processes, with `records` and `keys` as its format; `memory` is the store of a single process;
`write_behind` keeps writers from waiting; `embedded` starts a Valkey of our own. The package
itself pulls in neither redis nor msgpack: import `plato.context.redis`, `.records` and
`.embedded` by name.
"""

from plato.context.breaker import CircuitBreaker
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

"""Engines: token ids in, tokens out, with a KV cache.

`protocol` is the contract of an engine and `pool` that of several, `prompt` the chained segments,
`torch` the built-in engine. Nothing here imports the layers above it.
"""

from plato.engine.capabilities import Capabilities, PrefixSharing, Scores, losses
from plato.engine.errors import (
    ContextExceededError,
    EngineBusyError,
    EngineClosedError,
    EngineError,
    EngineUnreadyError,
    ModelNotSupportedError,
    OtherModelError,
    RequestRefusedError,
    ResumptionRefusedError,
    UpstreamError,
)
from plato.engine.fingerprint import fingerprint
from plato.engine.pool import (
    DecoderPool,
    Replica,
    ReplicaHealth,
    ReplicaStatus,
    replica_status,
)
from plato.engine.prompt import Prompt, Segment, chain_hash
from plato.engine.protocol import (
    Chunk,
    Engine,
    EngineStats,
    FinishReason,
    GenerateRequest,
    Grammar,
    KVEventBatch,
    KVPiece,
    Lease,
    Load,
    SamplingParams,
    StopConditions,
    StoredPrefix,
)
from plato.engine.stop import UNFINISHED, StopMatcher, without_unfinished

__all__ = [
    "UNFINISHED",
    "Capabilities",
    "Chunk",
    "ContextExceededError",
    "DecoderPool",
    "Engine",
    "EngineBusyError",
    "EngineClosedError",
    "EngineError",
    "EngineStats",
    "EngineUnreadyError",
    "FinishReason",
    "GenerateRequest",
    "Grammar",
    "KVEventBatch",
    "KVPiece",
    "Lease",
    "Load",
    "ModelNotSupportedError",
    "OtherModelError",
    "PrefixSharing",
    "Prompt",
    "Replica",
    "ReplicaHealth",
    "ReplicaStatus",
    "RequestRefusedError",
    "ResumptionRefusedError",
    "SamplingParams",
    "Scores",
    "Segment",
    "StopConditions",
    "StopMatcher",
    "StoredPrefix",
    "UpstreamError",
    "chain_hash",
    "fingerprint",
    "losses",
    "replica_status",
    "without_unfinished",
]

"""Engines: token ids in, tokens out, with a KV cache.

`protocol` is the contract, `prompt` the chained segments, `torch` the built-in engine. Nothing
here imports the rest of `plato`.
"""

from plato.engine.errors import (
    EngineBusyError,
    EngineClosedError,
    EngineError,
    ModelNotSupportedError,
    RequestRefusedError,
)
from plato.engine.prompt import Prompt, Segment, chain_hash
from plato.engine.protocol import (
    Chunk,
    Engine,
    EngineStats,
    FinishReason,
    GenerateRequest,
    HeldPrefix,
    HoldingsChange,
    KVPiece,
    Lease,
    Load,
    SamplingParams,
    StopConditions,
)

__all__ = [
    "Chunk",
    "Engine",
    "EngineBusyError",
    "EngineClosedError",
    "EngineError",
    "EngineStats",
    "FinishReason",
    "GenerateRequest",
    "HeldPrefix",
    "HoldingsChange",
    "KVPiece",
    "Lease",
    "Load",
    "ModelNotSupportedError",
    "Prompt",
    "RequestRefusedError",
    "SamplingParams",
    "Segment",
    "StopConditions",
    "chain_hash",
]

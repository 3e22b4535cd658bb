"""The built-in engine: any causal language model of transformers, on one KV tree."""

from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.engine import TorchEngine

__all__ = ["TorchEngine", "TorchEngineConfig"]

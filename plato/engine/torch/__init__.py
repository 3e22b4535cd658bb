"""The built-in engine: any causal language model of transformers, on one KV tree."""

import os
from pathlib import Path

# torch makes this folder when it is imported, in the system's temporary folder unless told.
os.environ.setdefault(
    "TORCHINDUCTOR_CACHE_DIR", str(Path.home() / ".cache" / "plato" / "torchinductor")
)

from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.engine import TorchEngine

__all__ = ["TorchEngine", "TorchEngineConfig"]

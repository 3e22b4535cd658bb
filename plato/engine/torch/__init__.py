"""The built-in engine: any causal language model of transformers, on one KV tree."""

import os

from plato.caches import cache_root

# torch creates this folder at import, by default in the system's temporary folder.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_root() / "torchinductor"))

from plato.engine.torch.config import TorchEngineConfig
from plato.engine.torch.engine import TorchEngine

__all__ = ["TorchEngine", "TorchEngineConfig"]

"""vLLM in this process: its batching, KV cache and kernels, with Plato's sampling.

`engine` is the `Engine` and `core` its sequences; `backend` starts and asks vLLM, which is named
only there, in `arguments` and in `processor`; `rows` samples inside vLLM's workers; `blocks`
follows its KV cache. vLLM is imported when an engine starts.
"""

from plato.engine.vllm.config import VllmConfig
from plato.engine.vllm.engine import VllmEngine

__all__ = ["VllmConfig", "VllmEngine"]

"""Engines that are servers of others: vLLM, SGLang and llama.cpp, over HTTP.

`engine` is the `Engine`, `dialects` what each kind of server is asked and how it answers,
`connection` which kind a server is, `client` HTTP itself. Servers yield tokens; what ends a
sequence and which text is released when is decided here, as for every engine.
"""

from plato.engine.openai.config import UpstreamConfig
from plato.engine.openai.connection import connect_at_start
from plato.engine.openai.engine import UpstreamEngine

__all__ = ["UpstreamConfig", "UpstreamEngine", "connect_at_start"]

"""Engines that are servers of others, over HTTP: vLLM, SGLang, llama.cpp, and chat completions.

`engine` is the `Engine` and `decoder` its sequences, `dialects` what each kind of server is asked
and how it answers, `connection` which kind a server is, `probe` which grammars it reads, `pause`
how long one without room is left alone, and `client` HTTP itself. Servers yield tokens, or text of
which `text_codec` makes some; what ends a sequence and which text is released when is decided here,
as for every engine.
"""

from plato.engine.openai.config import UpstreamConfig
from plato.engine.openai.connection import Connection, connect_at_start
from plato.engine.openai.engine import UpstreamEngine

__all__ = ["Connection", "UpstreamConfig", "UpstreamEngine", "connect_at_start"]

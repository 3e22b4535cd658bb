"""Kinds of servers."""

from plato.engine.openai.dialects.dialect import Delta, Dialect, Generation, ServerInfo
from plato.engine.openai.dialects.llama import LlamaDialect
from plato.engine.openai.dialects.sglang import SglangDialect
from plato.engine.openai.dialects.vllm import VllmDialect

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (VllmDialect(), SglangDialect(), LlamaDialect())
}
"""By name."""

__all__ = ["DIALECTS", "Delta", "Dialect", "Generation", "ServerInfo"]

"""Kinds of servers."""

from plato.engine.openai.config import DialectName
from plato.engine.openai.dialects.chat import ChatDialect
from plato.engine.openai.dialects.dialect import (
    ChatMessage,
    Delta,
    Dialect,
    Generation,
    ServerInfo,
)
from plato.engine.openai.dialects.llama import LlamaDialect
from plato.engine.openai.dialects.sglang import SglangDialect
from plato.engine.openai.dialects.vllm import VllmDialect

DIALECTS: dict[DialectName, Dialect] = {
    dialect.name: dialect
    for dialect in (VllmDialect(), SglangDialect(), LlamaDialect(), ChatDialect())
}
"""By name; the last one is for servers of no other kind."""

__all__ = ["DIALECTS", "ChatMessage", "Delta", "Dialect", "Generation", "ServerInfo"]

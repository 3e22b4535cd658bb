"""Configuration of an engine that is a server of others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from plato.engine.tokenizer_config import TokenizerConfig

DialectName = Literal["vllm", "sglang", "llama", "chat"]
Notation = Literal["json_schema", "gbnf", "lark"]
NOTATIONS: tuple[Notation, ...] = get_args(Notation)
"""The preferred one first."""
Configured = Literal["gbnf", "lark", "none"]


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """One server, and how it is asked. Times are in seconds."""

    url: str
    """Without `/v1`."""
    tokenizer: TokenizerConfig
    """Of the model that the server runs."""
    name: str = "upstream"
    """Name of the replica in chunks."""
    fingerprint: str = ""
    """Of the model in prompts (see `plato.engine.fingerprint`)."""
    dialect: DialectName | None = None
    """Kind of the server; `None`: ask it."""
    model: str | None = None
    """Name of the model at the server; `None`: the first that it serves."""
    key: str | None = field(default=None, repr=False)
    """Sent as bearer token."""
    grammar: Configured | None = None
    """Notation of grammars that the server is sent, besides JSON schemas; `None`: it is asked."""
    priority: bool = False
    """Whether the server was started with priority scheduling."""
    context_length: int = 4096
    """Longest sequence of the model, in tokens, if the server does not say its own."""
    max_sequences: int = 16
    """Sequences at the server at the same time."""
    max_waiting: int = 256
    """Sequences that wait here for one of these places; beyond it requests are refused."""
    start_s: float = 10.0
    """Deadline for recognising the server."""
    connect_s: float = 3.0
    answer_s: float = 120.0
    """Deadline for the first token: the server may have a queue, and computes the prompt."""
    silence_s: float = 30.0
    """Deadline for each further token."""

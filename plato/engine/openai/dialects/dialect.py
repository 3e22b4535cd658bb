"""What a kind of server is asked, and how it answers."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from plato.engine.capabilities import Capabilities
from plato.engine.errors import UpstreamError
from plato.engine.openai.client import UpstreamClient
from plato.engine.openai.config import DialectName, Notation
from plato.engine.protocol import FinishReason, GenerateRequest, SamplingParams

ChatMessage = dict[str, str]
"""Role and content."""
FINISHES = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
"""By OpenAI's names."""
LOWEST = -9999.0
"""Servers write this or less for minus infinity, which JSON does not have."""
MAX_REASON_CHARS = 30


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a server says of itself."""

    model: str
    context_length: int | None = None
    """Longest sequence, in tokens; `None`: not known."""
    slots: int | None = None
    """Sequences that it decodes at the same time; `None`: not known."""
    capabilities: Capabilities | None = None
    """Of this server; `None`: those of its kind."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """To send with every sequence."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A request, with what of it depends on the server."""

    request: GenerateRequest
    model: str
    """Name of the model at the server."""
    salt: str | None = None
    """Separates the cached prefixes of a tenant; `None`: shared with everybody."""
    grammar: tuple[Notation, str] | None = None
    """Notation and text."""
    priority: int | None = None
    """See `rank`: lower is earlier; `None`: the server would refuse it."""
    messages: tuple[ChatMessage, ...] = ()
    """What the server answers, or goes on with if the last one is the assistant's; for servers that
    take no token ids."""
    scored: tuple[str, ...] = ()
    """Texts of the tokens in `GenerateRequest.score`, for these servers."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """See `ServerInfo.fields`."""

    @property
    def tokens(self) -> list[int]:
        """What the server continues: the prompt and what was emitted already."""
        return [*self.request.prompt.tokens, *self.request.emitted]

    @property
    def budget(self) -> int:
        """Tokens still to decode."""
        return self.request.max_tokens - len(self.request.emitted)

    @property
    def sampling(self) -> SamplingParams:
        """How to sample, without penalties from which the request exempts tokens.

        Servers exempt none, and a penalty on the structure of a plan does more harm than none.
        """
        sampling = self.request.sampling
        if not sampling.penalty_exempt:
            return sampling
        return replace(
            sampling, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0
        )

    @property
    def seed(self) -> int:
        """A seed of 31 bits that differs between nodes and after a retry."""
        key = f"{self.request.sampling.seed}:{self.request.node}:{len(self.request.emitted)}"
        digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
        return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True, slots=True)
class Delta:
    """What one event of a stream says."""

    tokens: tuple[int, ...] = ()
    text: str = ""
    """What was decoded, instead of `tokens`, where the server gives no token ids."""
    finish: FinishReason | None = None
    """Why the server ended the sequence."""
    scores: tuple[float, ...] = ()
    """Log probabilities of `GenerateRequest.score`, in the first event with tokens."""
    cached_tokens: int = 0
    """Of the prompt; 0: none, or not known yet."""
    usage: tuple[int, int] | None = None
    """Tokens of the prompt and of the output as the server counts them, where it gives no ids."""


class Dialect(ABC):
    """A kind of server. Stateless: what a stream needs is in its reader."""

    name: ClassVar[DialectName]
    owner: ClassVar[str]
    """`owned_by` of its models in `GET /v1/models`."""
    path: ClassVar[str]
    """Where sequences are decoded."""
    health: ClassVar[str] = "/health"
    """What a server that is well answers."""
    capabilities: ClassVar[Capabilities]
    """With all notations of grammars that some server of this kind reads."""

    async def describe(self, client: UpstreamClient, model: Mapping[str, Any]) -> ServerInfo:
        """What the server says of itself; `model` is the entry in `GET /v1/models`."""
        return ServerInfo(model["id"], model.get("max_model_len"))

    async def tokenize(self, client: UpstreamClient, model: str, text: str) -> list[int]:
        """Token ids of `text`, without special tokens around it."""
        body = {"model": model, "prompt": text, "add_special_tokens": False}
        tokens: list[int] = (await client.ask("/tokenize", body))["tokens"]
        return tokens

    @abstractmethod
    def body(self, generation: Generation) -> dict[str, Any]:
        """What to post to `path`."""

    @abstractmethod
    def reader(self, generation: Generation) -> Callable[[Mapping[str, Any]], Delta]:
        """Reads the events of one stream, in order.

        Raises `UpstreamError` for one that lacks what was asked for. So do `KeyError`, `TypeError`
        and the like, which the caller turns into one.
        """

    def score_body(self, generation: Generation) -> dict[str, Any] | None:
        """What to post to `path` for the scores; `None`: they come with the stream."""
        return None

    def scores(self, generation: Generation, answer: Mapping[str, Any]) -> tuple[float, ...]:
        """The scores in the answer to `score_body`."""
        raise NotImplementedError


def finish_of(reason: str | None) -> FinishReason | None:
    """A finish reason by its OpenAI name. Raises `UpstreamError` for one that should not occur."""
    if reason is not None and reason not in FINISHES:
        raise UpstreamError(f"it ended the sequence with {str(reason)[:MAX_REASON_CHARS]!r}")
    return None if reason is None else FINISHES[reason]


def from_server(log_probability: float) -> float:
    """A log probability as servers write it."""
    return float("-inf") if log_probability <= LOWEST else log_probability

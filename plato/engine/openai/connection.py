"""Which kind of server an upstream is, and whether it runs the model that it should."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from plato.engine.capabilities import Capabilities, Scores
from plato.engine.errors import (
    EngineBusyError,
    EngineError,
    EngineUnreadyError,
    KeyRefusedError,
    NotServedError,
    OtherModelError,
    RequestRefusedError,
    UpstreamError,
)
from plato.engine.openai.client import UpstreamClient
from plato.engine.openai.config import NOTATIONS, DialectName, Notation, UpstreamConfig
from plato.engine.openai.dialects import DIALECTS, Delta, Dialect, Generation, ServerInfo
from plato.engine.openai.probe import find_notations, gives_scores, separates_tenants
from plato.engine.openai.tenancy import tenant_salt
from plato.engine.openai.text_codec import TextCodec
from plato.engine.protocol import GenerateRequest, Grammar
from plato.engine.rank import rank

logger = logging.getLogger(__name__)

RETRY_S = 1.0
"""Interval at which a server that is still starting is asked again."""
MODELS = "/v1/models"
"""Every server lists its models here."""
SAMPLE = 'Titles: "Überblick über 1234 Wörter", 東京 — don\'t\n\n  def main():\n'
"""Tokenised by the server and here: other models give other token ids."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A server whose dialect and model are known."""

    dialect: Dialect
    server: ServerInfo
    capabilities: Capabilities
    codec: TextCodec

    def generation(self, request: GenerateRequest, key: str | None) -> Generation:
        """The request as this server gets it; `key` is the server's, not the caller's."""
        codec = None if self.capabilities.token_ids else self.codec
        return Generation(
            request,
            self.server.model,
            salt=tenant_salt(request.prompt.tenant, key) if self.capabilities.tenants else None,
            grammar=self._grammar(request.grammar) if request.grammar is not None else None,
            priority=rank(request) if self.capabilities.priority else None,
            messages=codec.messages(request) if codec else (),
            scored=tuple(codec.text((token,)) for token in request.score) if codec else (),
            fields=self.server.fields,
        )

    def _grammar(self, grammar: Grammar) -> tuple[Notation, str]:
        """The grammar in a notation that the server reads, of which it has one."""
        written = ((name, getattr(grammar, name)) for name in NOTATIONS)
        return next(
            (name, text) for name, text in written if text and name in self.capabilities.grammars
        )

    async def deltas(self, client: UpstreamClient, generation: Generation) -> AsyncGenerator[Delta]:
        """Decode a sequence. Raises what `UpstreamClient.stream` raises."""
        read = self.dialect.reader(generation)
        body = self.dialect.body(generation)
        async with aclosing(client.stream(self.dialect.path, body)) as events:
            async for event in events:
                with self._expecting():
                    delta = read(event)
                    if delta.text:
                        delta = replace(delta, tokens=self.codec.tokens(delta.text))
                yield delta

    async def scores(self, client: UpstreamClient, generation: Generation) -> tuple[float, ...]:
        """The scores of a request, where they take a call of their own; otherwise nothing."""
        body = self.dialect.score_body(generation)
        if body is None:
            return ()
        answer = await client.ask(self.dialect.path, body)
        with self._expecting():
            return self.dialect.scores(generation, answer)

    @contextmanager
    def _expecting(self) -> Iterator[None]:
        """Turn what goes wrong with an unexpected answer into an `UpstreamError`."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            logger.info("the server does not answer like %s: %r", self.dialect.name, error)
            raise UpstreamError(f"the server does not answer like {self.dialect.name}") from error


async def connect(client: UpstreamClient, config: UpstreamConfig) -> Connection:
    """Ask a server what it is, and what it can do.

    Raises `UpstreamError` if it does not answer, `EngineError` if it is of no known kind, and
    `OtherModelError` if it does not have the model.
    """
    models = await client.ask(MODELS, deadline_s=config.start_s)
    model, dialect = identify(models, config.model, config.dialect)
    server = await _describe(client, dialect, model)
    capabilities = server.capabilities or dialect.capabilities
    if capabilities.token_ids:
        await _check_tokenizer(client, config, dialect, model)
    capabilities = replace(capabilities, priority=capabilities.priority and config.priority)
    connection = Connection(dialect, server, capabilities, TextCodec(config.tokenizer.backend))
    return replace(connection, capabilities=await _probe(client, config, connection))


async def _probe(
    client: UpstreamClient, config: UpstreamConfig, connection: Connection
) -> Capabilities:
    """What this server can do of what its kind can."""
    known, tokenizer = connection.capabilities, config.tokenizer.backend

    async def decode(request: GenerateRequest) -> AsyncGenerator[Delta]:
        generation = connection.generation(request, config.key)
        try:
            async with aclosing(connection.deltas(client, generation)) as deltas:
                async for delta in deltas:
                    yield delta
        except NotServedError as error:
            # Gateways that speak chat answer so, too, if no server of theirs knows a parameter.
            if not known.token_ids:
                raise
            raise UpstreamError(f"{connection.dialect.path}: {error}") from error

    grammars = await find_notations(known.grammars, config.grammar, tokenizer, decode)
    found = replace(known, grammars=grammars)
    # Other kinds have been asked by `describe`, or score in a request of its own.
    scores_in_stream = known.token_ids and known.scores is Scores.LOG_PROBABILITIES
    if scores_in_stream and not await gives_scores(tokenizer, decode):
        found = replace(found, scores=Scores.NONE)
    if known.tenants and not await separates_tenants(tokenizer, decode):
        found = replace(found, tenants=False, public_sharing=True)  # It gets no salt.
    return found


async def _describe(
    client: UpstreamClient, dialect: Dialect, model: Mapping[str, Any]
) -> ServerInfo:
    try:
        return await dialect.describe(client, model)
    except RequestRefusedError as error:
        raise EngineError(
            f"it does not answer like {dialect.name} ({error}); set upstream_dialect to the kind "
            f"of server that it is ({', '.join(DIALECTS)})"
        ) from error
    except (LookupError, TypeError, AttributeError) as error:
        logger.info("the server does not answer like %s: %r", dialect.name, error)
        raise UpstreamError(f"the server does not answer like {dialect.name}") from error


async def connect_at_start(config: UpstreamConfig) -> Connection:
    """Connect with a client for this event loop alone, trying again for up to `config.start_s`.

    Raises `EngineError` that names the URL; see `connect`.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + config.start_s
    while True:
        client = UpstreamClient(config)
        try:
            return await connect(client, config)
        except KeyRefusedError as error:
            raise KeyRefusedError(
                f"{config.url}: the server wants a key, or another one; set "
                "PLATO_UPSTREAM_API_KEY or upstream_api_key_file"
            ) from error
        except EngineError as error:
            waits = isinstance(error, (UpstreamError, EngineBusyError))
            if not waits or loop.time() + RETRY_S > deadline:
                raise type(error)(f"{config.url}: {error}") from error
            logger.info("waiting for %s: %s", config.url, error)
        finally:
            await client.close()
        await asyncio.sleep(RETRY_S)


def identify(
    models: Any, name: str | None, dialect: DialectName | None
) -> tuple[Mapping[str, Any], Dialect]:
    """The entry of the model `name`, else the first, in `GET /v1/models`; and the server's dialect.

    Raises `UpstreamError` if `models` is no such answer, `EngineUnreadyError` if it is empty, as
    while a server loads its model, and `OtherModelError` if it lacks the model.
    """
    model = _choose(_models(models), name)
    return model, _recognise(model, dialect)


def _models(answer: Any) -> list[Mapping[str, Any]]:
    """The entries of `GET /v1/models`."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in entries
    ):
        raise UpstreamError(f"{MODELS}: the answer is no list of models")
    if not entries:
        raise EngineUnreadyError("the server has no model yet")
    return entries


def _choose(models: list[Mapping[str, Any]], name: str | None) -> Mapping[str, Any]:
    """The model with this name, or the first one."""
    named = [model for model in models if name in (None, model["id"])]
    if not named:
        known = ", ".join(model["id"] for model in models)
        raise OtherModelError(f"the server has no model {name}, but {known}; set upstream_model")
    return named[0]


def _recognise(model: Mapping[str, Any], name: DialectName | None) -> Dialect:
    """The dialect of this name, or the one of whoever owns the model."""
    if name is not None:
        return DIALECTS[name]
    owner = model.get("owned_by")
    known = (dialect for dialect in DIALECTS.values() if dialect.owner == owner)
    return next(known, DIALECTS["chat"])


async def _check_tokenizer(
    client: UpstreamClient, config: UpstreamConfig, dialect: Dialect, model: Mapping[str, Any]
) -> None:
    """Raise `OtherModelError` if the server's token ids are not those of prompts."""
    name = model["id"]
    own: list[int] = config.tokenizer.backend.encode(SAMPLE, add_special_tokens=False).ids
    try:
        found = await dialect.tokenize(client, name, SAMPLE)
    except (RequestRefusedError, KeyError, TypeError) as error:
        logger.warning(
            "the tokenizer of %s cannot be compared with that of the model: %s", config.url, error
        )
        return
    if found != own:
        raise OtherModelError(
            f"the server's model {name} has another tokenizer than the configured model; set "
            f"model to {model.get('root') or 'the one that the server was started with'}"
        )

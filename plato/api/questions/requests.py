"""From a body to a `RunRequest`: all validation, for HTTP, the command line and the library."""

from __future__ import annotations

import re
import secrets
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json
from starlette.requests import Request

from plato.api.errors import invalid_request
from plato.api.models import require_model
from plato.api.questions.messages import to_conversation
from plato.api.questions.options import PlanNode, PlatoOptions
from plato.api.questions.response_format import grammar_of, grammar_under
from plato.api.questions.schemas import ChatCompletionRequest
from plato.engine import SamplingParams
from plato.errors import ContextLengthError, InvalidRequestError
from plato.planning.given import validate_plan, validate_script
from plato.runs import Message, Node, RunRequest
from plato.settings import Settings

_ANSWER_PREFIX = re.compile("^(chatcmpl-|cmpl-|resp_)")
Body = TypeVar("Body", bound=BaseModel)

SEED_BITS = 63
DRAWN_SEED_BITS = 53
"""JSON numbers are exact up to here for all clients, so they can send a reported seed again."""
SHORT_BODY = 64 << 10
"""Size of a body whose errors are found within milliseconds, however many."""
MAX_MEMBERS = 400
"""Of any object in a body; the largest valid ones are biases."""
TOKEN_CHARS = 128
"""Characters of the longest token that a vocabulary has, mostly white space."""
MESSAGE_TOKENS = 2
"""Fewest tokens of a message: a template marks where it begins and ends."""


def random_seed() -> int:
    """A seed for a request that asks to sample without one."""
    return secrets.randbits(DRAWN_SEED_BITS)


def run_id_of(request: Request) -> str:
    """The run id in the path, also as the id of an answer; noted for the logs."""
    run_id = plain_run_id(str(request.path_params["run_id"]))
    request.state.run = run_id
    return run_id


def plain_run_id(name: str) -> str:
    """The id of a run, of which the id of an answer consists with its prefix."""
    return _ANSWER_PREFIX.sub("", name)


def parse_request(
    body: bytes | str, *, run: bool = False, context_length: int | None = None
) -> ChatCompletionRequest:
    """Read a body; with `run`, that of a detached run. Raises `InvalidRequestError`.

    With `context_length`, more messages than fit into it are refused before they are validated,
    which takes ten times as long as reading them.
    """
    request = parse_body(ChatCompletionRequest, body, context_length)
    if run and request.stream:
        raise InvalidRequestError(
            "'stream' is not supported for runs; remove it, and use /v1/runs/{id}/events",
            param="stream",
        )
    return request


def parse_body(kind: type[Body], body: bytes | str, context_length: int | None = None) -> Body:
    """Read a body of this kind; see `parse_request`. Raises `InvalidRequestError`."""
    try:
        values = from_json(body)
    except ValueError as error:
        raise InvalidRequestError(
            f"the body is not valid JSON in UTF-8: {error}{_advice(error)}", code="invalid_json"
        ) from error
    if len(body) > SHORT_BODY:
        _refuse_many_items(values, context_length)
    with validated():
        return kind.model_validate(values)


def _advice(error: ValueError) -> str:
    """What to do about JSON that cannot be read, if that is known."""
    if "hex escape" not in str(error):
        return ""
    return "; a text has half of a surrogate pair: cut texts between characters, not within them"


def parse_query(kind: type[Body], request: Request) -> Body:
    """Read the query of a request. Raises `InvalidRequestError`."""
    with validated():
        return kind.model_validate(dict(request.query_params))


@contextmanager
def validated() -> Iterator[None]:
    """Turn the errors of pydantic into `InvalidRequestError`."""
    try:
        yield
    except ValidationError as error:
        raise invalid_request(error) from error


def _refuse_many_items(body: Any, context_length: int | None) -> None:
    """Refuse too many messages, and objects with more members than any valid one has.

    Each member would be an error of its own.
    """
    for name in ("messages", "input"):
        messages = body.get(name) if isinstance(body, dict) else None
        if isinstance(messages, list) and context_length is not None:
            _refuse_many_messages(len(messages), context_length)
    values = [body]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if len(value) > MAX_MEMBERS:
                raise InvalidRequestError(
                    f"an object in the body has {len(value)} members; send at most {MAX_MEMBERS}"
                )
            value = value.values()
        values += [inner for inner in value if isinstance(inner, dict | list)]


def validate_request(fields: Mapping[str, Any]) -> ChatCompletionRequest:
    """Read the fields of a request as from a body. Raises `InvalidRequestError`."""
    return parse_request(write_body(fields))


def write_body(fields: Mapping[str, Any]) -> bytes:
    """The body with the fields of a request. Raises `InvalidRequestError`."""
    try:
        return to_json(fields)
    except PydanticSerializationError as error:
        raise InvalidRequestError(f"the request cannot be written as JSON: {error}") from error


def to_run_request(
    body: ChatCompletionRequest,
    *,
    settings: Settings,
    context_length: int,
    sampling: SamplingParams,
    fingerprint: str = "",
    tenant: str = "",
    run_id: str | None = None,
    raw: bool = False,
    traceparent: str = "",
    seed_source: Callable[[], int] = random_seed,
) -> RunRequest:
    """The request for the scheduler, with the defaults of `settings`; by default a new run.

    With `raw` the only message is continued; see `RunRequest`, also for `traceparent`.
    `sampling` has the defaults of `plato.models.sampling.default_sampling`, and `fingerprint` is
    of the model that is to answer.

    Raises `InvalidRequestError` if the request exceeds the limits of `settings`, and
    `ContextLengthError` if it certainly exceeds `context_length` tokens: how many it has, only the
    scheduler knows.
    """
    require_model(body.model, settings)
    options = body.options
    _refuse_equal_work(options, settings)
    _refuse_many_messages(len(body.messages), context_length)
    messages = to_conversation(body.messages)
    _refuse_too_long(body, messages, context_length)
    max_nodes = _max_nodes(options, settings)
    plan = None if options.plan is None else validate_plan(_nodes(options.plan), max_nodes)
    if plan is not None and options.decode_plan:
        validate_script(plan)
    function = body.demanded_function
    return RunRequest(
        run_id=run_id or uuid.uuid4().hex,
        messages=messages,
        tenant=tenant,
        fingerprint=fingerprint,
        mode=body.mode,
        sampling=_sampling(body, sampling, seed_source),
        stop=tuple(body.stop or ()),
        max_tokens=body.answer_tokens,
        max_nodes=max_nodes,
        plan=plan,
        decode_plan=options.decode_plan,
        exact_lengths=options.exact_lengths,
        include_prompts=options.prompts,
        headings=options.headings,
        raw=raw,
        grammar=(
            grammar_under(function.parameters, "tools")
            if function is not None
            else grammar_of(body.response_format)
        ),
        function=function.name if function is not None else None,
        ignored=body.ignored,
        metadata=tuple((body.metadata or {}).items()),
        created_unix_s=time.time(),
        traceparent=traceparent,
        deadline_s=_deadline(options, settings),
    )


def _sampling(
    body: ChatCompletionRequest, defaults: SamplingParams, seed_source: Callable[[], int]
) -> SamplingParams:
    """`defaults`, and over them what the request sets.

    The same request gives the same text, unless it asks for chance: with a temperature of its own
    and no seed, one is drawn.
    """
    seed = body.seed
    if seed is None:
        seed = seed_source() if body.temperature else defaults.seed
    return replace(
        defaults,
        **body.sampling,
        seed=seed % 2**SEED_BITS,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=tuple((int(token), bias) for token, bias in (body.logit_bias or {}).items()),
    )


def _max_nodes(options: PlatoOptions, settings: Settings) -> int:
    if options.max_nodes is None:
        return settings.max_nodes
    if options.max_nodes > settings.max_nodes:
        raise InvalidRequestError(
            f"'plato.max_nodes' is {options.max_nodes}, and this deployment allows "
            f"{settings.max_nodes}; ask for fewer parts",
            param="plato.max_nodes",
        )
    return options.max_nodes


def _refuse_too_long(
    body: ChatCompletionRequest, messages: Sequence[Message], context_length: int
) -> None:
    """Refuse what no tokenizer could fit: rendering and tokenising it would take seconds."""
    context = f"the model's context of {context_length} tokens"
    length = sum(len(message.content) for message in messages)
    if length > context_length * TOKEN_CHARS:
        raise ContextLengthError(
            f"messages of {length} characters do not fit into {context}; shorten them",
            param="messages",
        )
    if body.options.exact_lengths:
        lengths = [body.answer_tokens, *(node.max_tokens for node in body.options.plan or ())]
        longest = max(tokens for tokens in lengths if tokens is not None)
        if longest > context_length:
            raise ContextLengthError(
                f"{longest} output tokens do not fit into {context}; ask for fewer",
                param="max_tokens",
            )


def _refuse_many_messages(count: int, context_length: int) -> None:
    if count > context_length // MESSAGE_TOKENS:
        raise ContextLengthError(
            f"{count} messages do not fit into the model's context of {context_length} tokens; "
            "send fewer",
            param="messages",
        )


def _refuse_equal_work(options: PlatoOptions, settings: Settings) -> None:
    for name in ("decode_plan", "exact_lengths"):
        if getattr(options, name) and not settings.equal_work:
            raise InvalidRequestError(
                f"'plato.{name}' is for measurements, and this deployment does not accept it; "
                "leave it out, or start the server with equal_work=true",
                param=f"plato.{name}",
            )


def _deadline(options: PlatoOptions, settings: Settings) -> float:
    if options.deadline_s is not None and options.deadline_s > settings.run_deadline_s:
        raise InvalidRequestError(
            f"'plato.deadline_s' is {options.deadline_s:g}, and this deployment allows "
            f"{settings.run_deadline_s:g}; ask for less, or leave it out",
            param="plato.deadline_s",
        )
    return options.deadline_s or settings.run_deadline_s


def _nodes(plan: Sequence[PlanNode]) -> list[Node]:
    """The nodes as sent; a node without a number gets its position in the list."""
    return [
        Node(
            number=position if node.number is None else node.number,
            title=node.title,
            dependencies=tuple(sorted(node.dependencies)),
            max_tokens=node.max_tokens,
            length=node.length,
        )
        for position, node in enumerate(plan, start=1)
    ]

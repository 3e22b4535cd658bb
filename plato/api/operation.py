"""What a handler takes and answers, declared beside it; the OpenAPI document is made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from plato.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    ContextLengthError,
    DeadlineError,
    InvalidPlanError,
    InvalidRequestError,
    MediaTypeError,
    ModelNotFoundError,
    NodeFailedError,
    OverloadedError,
    PlatoError,
    RateLimitError,
    RunCancelledError,
    RunNotFoundError,
    StorageQuotaError,
    UnavailableError,
)

Errors = tuple[type[PlatoError], ...]

LIMITED: Errors = (RateLimitError, UnavailableError)
"""Of everything that takes a slot."""
OF_A_RUN: Errors = (*LIMITED, RunNotFoundError)
"""Of what names a run."""
ASKING: Errors = (
    *LIMITED,
    InvalidRequestError,
    InvalidPlanError,
    ContextLengthError,
    ModelNotFoundError,
    BodyTimeoutError,
    BodyTooLargeError,
    MediaTypeError,
    OverloadedError,
    StorageQuotaError,
)
"""Of a question that is not begun."""
FAILED: Errors = (NodeFailedError, DeadlineError, RunCancelledError)
"""Of an answer."""
ANSWERING: Errors = (*ASKING, *FAILED)
"""Of a question whose answer is waited for."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a resource. What it does is the docstring of its handler."""

    answers: Mapping[int, Any]
    """The type of the JSON body by status; `None` is no body."""
    stream: Any = None
    """The type of the data of server-sent events, where they can be the answer with status 200."""
    ends_with: str | None = None
    """The data of the last event of a stream, if it is not JSON."""
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: type[BaseModel] | None = None
    errors: Errors = ()


Handler = TypeVar("Handler", bound=Callable[..., Any])


def operation(answer: Any, *, status: int = 200, **fields: Any) -> Callable[[Handler], Handler]:
    """Declare a handler that answers with a body of type `answer`; for `fields` see `Operation`."""
    declared = Operation({status: answer, **fields.pop("others", {})}, **fields)

    def declare(handler: Handler) -> Handler:
        handler.operation = declared  # type: ignore[attr-defined]
        return handler

    return declare


def operation_of(handler: Callable[..., Any]) -> Operation:
    """What `operation` has declared. Raises `AttributeError` if nothing has."""
    declared: Operation = handler.operation  # type: ignore[attr-defined]
    return declared

"""Errors that callers expect, sent as values: Serve logs exceptions of a replica with a traceback.

A run that does not exist, a full queue or a refused request is an answer, not a fault. The methods
of replicas that raise such errors are decorated here, and `deployments.handles` raises them again.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import ParamSpec, TypeVar, cast

from plato.engine import EngineError
from plato.errors import PlatoError

EXPECTED = PlatoError, EngineError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Raised:
    """An error in place of a result or an item."""

    error: Exception


def sends_errors(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """For a method with one result."""

    @functools.wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except EXPECTED as error:
            return cast(T, Raised(error))

    return call


def streams_errors(
    method: Callable[P, AsyncGenerator[T]],
) -> Callable[P, AsyncGenerator[T]]:
    """For a method whose items are streamed; an error is the last one."""

    @functools.wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T]:
        try:
            async with aclosing(method(*args, **kwargs)) as items:
                async for item in items:
                    yield item
        except EXPECTED as error:
            yield cast(T, Raised(error))

    return call


def unwrap(result: T) -> T:
    """A result or item. Raises the error that it stands for."""
    if isinstance(result, Raised):
        raise result.error
    return result

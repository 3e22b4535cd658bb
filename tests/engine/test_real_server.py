"""Failures of a real server; see `tests.engine.upstream.real`. The last test kills it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from plato.engine import (
    Chunk,
    GenerateRequest,
    Grammar,
    OtherModelError,
    RequestRefusedError,
    UpstreamError,
)
from plato.engine.openai import UpstreamEngine
from tests.engine.helpers import ask, collect, some_tokens
from tests.engine.upstream.real import REAL, REAL_SERVER, RealServer
from tests.engine.waiting import until

pytestmark = [
    pytest.mark.skipif(REAL is None, reason="there is no real server"),
    pytest.mark.parametrize("server", [pytest.param(REAL, id=REAL_SERVER)]),
]
SILENCE_S = 3.0


@pytest.fixture
async def engine(server: RealServer, model_folder: str) -> AsyncIterator[UpstreamEngine]:
    engine = await server.engine(model_folder, silence_s=SILENCE_S, answer_s=60.0)
    yield engine
    await engine.close()


def long_request() -> GenerateRequest:
    return ask(some_tokens(10, 1), max_tokens=400)


async def decode(engine: UpstreamEngine, asked: GenerateRequest) -> tuple[int, ...]:
    async with asyncio.timeout(60):
        return (await collect(engine, asked)).tokens


async def _read(chunks: AsyncIterator[Chunk]) -> None:
    async for _ in chunks:
        pass


async def test_a_model_that_it_lacks_is_named_with_those_that_it_has(
    server: RealServer, model_folder: str
) -> None:
    with pytest.raises(OtherModelError, match=r"no model other, but .*; set upstream_model"):
        await server.engine(model_folder, model="other")


async def test_a_grammar_that_it_cannot_read_is_refused_with_the_reason(
    engine: UpstreamEngine,
) -> None:
    broken = Grammar(lark="start: (", gbnf="root ::= (")
    with pytest.raises(RequestRefusedError, match=r"the server refuses the request: .+"):
        await decode(engine, ask(some_tokens(10, 2), grammar=broken))
    assert len(await decode(engine, ask(some_tokens(10, 3)))) == 8


async def test_a_server_that_stands_still_in_mid_stream_is_given_up_and_comes_back(
    server: RealServer, engine: UpstreamEngine
) -> None:
    async with aclosing(engine.generate(long_request())) as chunks:
        async for chunk in chunks:
            if chunk.tokens:
                break
        with server.suspended(), pytest.raises(UpstreamError, match="in time"):
            await asyncio.wait_for(_read(chunks), SILENCE_S + 5)
    await until(lambda: engine.stats().available, 30)
    assert len(await decode(engine, ask(some_tokens(10, 5)))) == 8


async def test_what_has_not_begun_at_a_server_that_stands_still_is_given_back(
    server: RealServer, engine: UpstreamEngine
) -> None:
    await decode(engine, ask(some_tokens(10, 7)))
    with server.suspended(), pytest.raises(UpstreamError, match="in time"):
        # Long before the deadline for the first token.
        await asyncio.wait_for(decode(engine, ask(some_tokens(10, 8))), 20)
    await until(lambda: engine.stats().available, 30)


async def test_a_server_that_dies_in_mid_stream_is_an_error_at_once(
    server: RealServer, engine: UpstreamEngine
) -> None:
    with pytest.raises(UpstreamError):  # noqa: PT012 - the stream must have begun
        async with asyncio.timeout(10), aclosing(engine.generate(long_request())) as chunks:
            async for chunk in chunks:
                if chunk.tokens:
                    server.kill()
    with pytest.raises(UpstreamError, match="away"):
        await decode(engine, ask(some_tokens(10, 6)))
    assert not engine.stats().available

"""Servers that do what a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from plato.engine.openai import UpstreamEngine
from tests.engine.upstream.scripted import ScriptedServer

MakeEngine = Callable[..., Awaitable[UpstreamEngine]]


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    await server.http.start()
    yield server
    await server.http.stop()


@pytest.fixture
async def make_engine(server: ScriptedServer) -> AsyncIterator[MakeEngine]:
    """Engines over the server, closed after the test, which must leave none of them busy."""
    engines: list[UpstreamEngine] = []

    async def make(**fields: Any) -> UpstreamEngine:
        engines.append(await server.engine(**fields))
        return engines[-1]

    yield make
    for engine in engines:
        assert not list(engine._live)
        assert (engine._live.prefill_tokens, engine._live.held_tokens) == (0, 0)
        await engine.close()


@pytest.fixture
async def engine(make_engine: MakeEngine) -> UpstreamEngine:
    return await make_engine()

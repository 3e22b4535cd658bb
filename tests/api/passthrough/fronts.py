"""Plato in front of upstreams, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx
from openai import AsyncOpenAI

from plato.api.passthrough import Upstreams
from plato.api.service import RunService
from plato.engine import Engine, SamplingParams
from plato.engine.tokenizer_config import TokenizerConfig
from plato.settings import Settings
from tests.api.passthrough.upstream import Upstream
from tests.engine.upstream.scripted import byte_tokenizer
from tests.recording import MemoryRecorder
from tests.serving import serving

CONTEXT = 2048
UPSTREAM_KEY = "sk-of-the-upstream"
NAME = "tiny-here"
MESSAGES: Any = [{"role": "user", "content": "Why is the sea salty?"}]


class NoRuns:
    """A service that nobody should ask: all is passed on."""

    context_length = CONTEXT
    fingerprint = ""
    sampling = SamplingParams()
    thinks = False

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"{name}: the request was not passed on")


@dataclass
class Front:
    """Plato in front of its upstreams."""

    url: str
    upstreams: list[Upstream]
    recorder: MemoryRecorder

    @property
    def upstream(self) -> Upstream:
        (only,) = self.upstreams
        return only

    def client(self, *, direct: bool = False) -> AsyncOpenAI:
        """Of Plato, or of the upstream itself."""
        base = self.upstream.http.url if direct else self.url
        return AsyncOpenAI(base_url=f"{base}/v1", api_key="mine", max_retries=0, timeout=20)

    def http(self) -> httpx.AsyncClient:
        headers = {"Authorization": "Bearer mine"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=20)


@asynccontextmanager
async def upstreams_of(
    count: int, engine: Engine | None = None, tokenizer: TokenizerConfig | None = None
) -> AsyncGenerator[list[Upstream]]:
    """Upstreams that run; only with an `engine` can they decode parts."""
    async with AsyncExitStack() as stack:
        upstreams = [Upstream(engine, tokenizer or byte_tokenizer(), CONTEXT) for _ in range(count)]
        for upstream in upstreams:
            await upstream.http.start()
            stack.push_async_callback(upstream.http.stop)
        yield upstreams


def settings_for(upstreams: list[Upstream], **fields: Any) -> Settings:
    defaults = {
        "model": "unused",
        "served_model_name": NAME,
        "engine": "openai",
        "upstreams": tuple(upstream.http.url for upstream in upstreams),
        "upstream_start_s": 5.0,
        "upstream_api_key": UPSTREAM_KEY,
        "temperature": 0.0,
    }
    return Settings(**{**defaults, **fields})


@asynccontextmanager
async def in_front(
    upstreams: list[Upstream], service: RunService, settings: Settings
) -> AsyncIterator[Front]:
    """Plato in front of upstreams that run."""
    passed, recorder = Upstreams.of(settings), MemoryRecorder()
    try:
        async with serving(service, settings, recorder, passed) as url:
            yield Front(url, upstreams, recorder)
    finally:
        await passed.close()


@asynccontextmanager
async def passing_front(count: int = 1, **fields: Any) -> AsyncIterator[Front]:
    """Plato in front of `count` upstreams, for requests that it does not plan."""
    async with upstreams_of(count) as upstreams:
        service: Any = NoRuns()
        async with in_front(upstreams, service, settings_for(upstreams, **fields)) as front:
            yield front

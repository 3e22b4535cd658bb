"""Plato in front of upstreams, and clients of both; one event loop for all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest_asyncio
from openai import AsyncOpenAI

from plato.api.passthrough import Upstreams
from plato.engine.torch import TorchEngine, TorchEngineConfig
from plato.runtime import Runtime
from plato.settings import Settings
from tests.api.passthrough.upstream import Upstream
from tests.recording import MemoryRecorder
from tests.serving import serving

CONTEXT = 2048
UPSTREAM_KEY = "sk-of-the-upstream"


@dataclass
class Front:
    """Plato in front of its upstreams."""

    url: str
    runtime: Runtime
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

    def http(self, **fields: Any) -> httpx.AsyncClient:
        fields = {"headers": {"Authorization": "Bearer mine"}, **fields}
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=20, **fields)


class Fronts:
    """Starts servers, all over one model."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        # Its thread is a daemon, so nothing is left to close.
        self._engine = TorchEngine(
            TorchEngineConfig(
                folder, device="cpu", dtype="float32", kv_budget_bytes=16 << 20, threads=1
            )
        )

    @asynccontextmanager
    async def open(self, count: int = 1, **fields: Any) -> AsyncIterator[Front]:
        """Plato in front of `count` upstreams."""
        async with AsyncExitStack() as stack:
            upstreams = []
            for _ in range(count):
                upstream = Upstream(self._engine, self._engine._model.tokenizer, CONTEXT)
                await upstream.http.start()
                stack.push_async_callback(upstream.http.stop)
                upstreams.append(upstream)
            settings = Settings(
                model=self._folder,
                served_model_name="tiny-here",
                dtype="float32",
                engine="openai",
                upstreams=tuple(upstream.http.url for upstream in upstreams),
                upstream_start_s=5.0,
                upstream_api_key=UPSTREAM_KEY,
                temperature=0.0,
                lease_ttl_s=60,
                **fields,
            )
            runtime = await stack.enter_async_context(await Runtime.open(settings))
            passed = Upstreams.of(settings)
            stack.push_async_callback(passed.close)
            recorder = MemoryRecorder()
            url = await stack.enter_async_context(
                serving(runtime.service, settings, recorder, passed)
            )
            yield Front(url, runtime, upstreams, recorder)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def fronts(tiny_model_folder: str) -> Fronts:
    return Fronts(tiny_model_folder)


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def opened(fronts: Fronts) -> AsyncIterator[Front]:
    async with fronts.open() as front:
        yield front


@pytest_asyncio.fixture(loop_scope="package")
async def front(opened: Front) -> AsyncIterator[Front]:
    """One upstream, which the test finds as it was at the start."""
    upstream = opened.upstream
    upstream.passed.clear()
    upstream.headers.clear()
    upstream.status = 200
    upstream.left.clear()
    yield opened
    upstream.hold.set()

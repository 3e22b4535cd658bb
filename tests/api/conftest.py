"""The API over a real runtime with a tiny model; one event loop for all of its tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from plato.runtime import Runtime
from plato.settings import Settings
from tests.serving import connect


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def runtime(tiny_model_folder: str) -> AsyncIterator[Runtime]:
    """A generous lease, as test machines are slow."""
    settings = Settings(
        model=tiny_model_folder,
        served_model_name="tiny",
        kv_budget_mb=16,
        temperature=0.0,
        equal_work=True,
        lease_ttl_s=10,
    )
    async with await Runtime.open(settings) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="package")
async def http(runtime: Runtime) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application over the runtime."""
    async with connect(runtime.service, runtime.settings) as client:
        yield client

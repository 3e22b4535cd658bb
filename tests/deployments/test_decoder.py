"""A decoder outside Serve: what it loads."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

from deployments import decoder
from plato.context import MemoryContextStore
from plato.engine.tokenizer_config import TokenizerConfig
from plato.metrics import NO_METRICS
from plato.settings import Settings


async def test_it_loads_one_tokenizer(
    tiny_model_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes tens of megabytes and a part of a second."""

    async def opened(*_: object) -> MemoryContextStore:
        return MemoryContextStore()

    monkeypatch.setattr(decoder, "start_replica", lambda _: "decoder")
    monkeypatch.setattr(decoder, "open_replica_store", opened)
    monkeypatch.setattr(decoder, "replica_recorder", lambda: NO_METRICS)
    monkeypatch.setattr(decoder, "start_sampling", Mock())
    load = Mock(side_effect=TokenizerConfig.load)
    monkeypatch.setattr(TokenizerConfig, "load", load)
    settings = Settings(
        model=tiny_model_folder, device="cpu", dtype="float32", kv_budget_mb=8, decoder_threads=1
    )
    made = decoder.Decoder.func_or_class.__new__(decoder.Decoder.func_or_class)
    await made.__init__(settings)
    async with asyncio.timeout(20):
        await made._prefilling
    assert load.call_count == 1
    # Its engine accepts the prompts that all requests share.
    assert (await made.stats()).prompt_tokens > 0
    made._publishing.cancel()
    await made._engine.close()

"""A real server with the default model, started by `python -m benchmarks.engines`.

PLATO_TEST_UPSTREAM is its URL, PLATO_TEST_GROUP its process group, and PLATO_TEST_TOLERANCE by how
much its log probabilities may differ from those of the built-in engine in float32.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from plato.engine.openai import UpstreamConfig, UpstreamEngine
from plato.engine.tokenizer_config import TokenizerConfig
from plato.engine.torch import TorchEngine
from tests.engine.conftest import tiny_config

REAL_SERVER = "real-server"
"""Names its tests."""
KV_BYTES = 256 << 20


@dataclass(frozen=True)
class RealServer:
    """A server of others."""

    url: str
    group: int
    tolerance: float

    async def engine(self, folder: str, **fields: Any) -> UpstreamEngine:
        """An engine over it; `folder` is that of the model."""
        config = UpstreamConfig(
            **{"url": self.url, "tokenizer": TokenizerConfig.load(folder), "name": "real", **fields}
        )
        return await asyncio.to_thread(UpstreamEngine, config)

    @staticmethod
    @cache
    def reference(folder: str) -> TorchEngine:
        """The built-in engine with the model; its thread is a daemon: nothing is left to close."""
        return TorchEngine(tiny_config(folder, kv_budget_bytes=KV_BYTES))

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """It stands still, and its connections stay open."""
        os.killpg(self.group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.group, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once."""
        os.killpg(self.group, signal.SIGKILL)


def _find() -> RealServer | None:
    url = os.environ.get("PLATO_TEST_UPSTREAM")
    if url is None:
        return None
    group, tolerance = (os.environ[f"PLATO_TEST_{name}"] for name in ("GROUP", "TOLERANCE"))
    return RealServer(url, int(group), float(tolerance))


REAL = _find()

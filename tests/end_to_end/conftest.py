"""The real application: Serve, an embedded Valkey, the real small model, the openai client."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports Ray: it sets what Ray reads once.
from deployments.local import APP_NAME, LocalApp  # isort: skip
from openai import OpenAI
from ray import serve

from plato.engine import EngineStats
from plato.settings import Settings

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is slow."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def settings(model_folder: str) -> Settings:
    """What the application is started with."""
    return Settings(model=model_folder, served_model_name="small", node_max_tokens=64)


@pytest.fixture(scope="session")
def app(settings: Settings) -> Iterator[LocalApp]:
    """The application; one for all tests."""
    with LocalApp(settings, port=free_port()) as running:
        yield running


@pytest.fixture
def client(app: LocalApp) -> Iterator[OpenAI]:
    """The official client; retries would hide failures."""
    with OpenAI(base_url=f"{app.url}/v1", api_key="test-key", max_retries=0, timeout=120) as opened:
        yield opened


def decoder_stats() -> EngineStats:
    """The only decoder's own word."""
    handle: Any = serve.get_deployment_handle("Decoder", APP_NAME)
    stats: EngineStats = handle.stats.remote().result(timeout_s=10)
    return stats


def wait_until(true: Callable[[], bool], deadline_s: float, what: str) -> float:
    """Wait for a condition; returns the seconds that took."""
    started = time.monotonic()
    while not true():
        if time.monotonic() - started > deadline_s:
            pytest.fail(f"after {deadline_s} s still not: {what}")
        time.sleep(0.02)
    return time.monotonic() - started

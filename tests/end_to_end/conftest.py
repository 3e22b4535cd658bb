"""The real application: Serve, an embedded Valkey, the real small model, the openai client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports Ray: it sets what Ray reads once.
from deployments.local import APP_NAME, LocalApp  # isort: skip
from openai import OpenAI
from ray import serve

from plato.engine import EngineStats
from plato.ports import free_port
from plato.settings import Settings
from tests.end_to_end.server import Server

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is slow."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def settings(model_folder: str) -> Settings:
    """What the application is started with."""
    return Settings(
        model=model_folder, served_model_name="small", node_max_tokens=64, equal_work=True
    )


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


@pytest.fixture(scope="session")
def server(model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three decoders, and two of everything else."""
    folder: Path = tmp_path_factory.mktemp("server")
    with Server(
        folder,
        model=model_folder,
        served_model_name="small",
        dtype="float32",
        decoders=3,
        schedulers=2,
        planners=2,
        ingresses=2,
        decoder_cpus=0.5,
        decoder_threads=1,
        kv_budget_mb=256,
    ) as running:
        yield running

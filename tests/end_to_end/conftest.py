"""The real small model behind real servers: in one process, and on Ray; the openai client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from tests.end_to_end.server import Server


@pytest.fixture(scope="package")
def embedded(model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One process, without Ray."""
    folder: Path = tmp_path_factory.mktemp("embedded")
    command = ("plato", "serve", "--embedded")
    with Server(
        folder, command, model=model_folder, served_model_name="small", node_max_tokens=64
    ) as running:
        yield running


@pytest.fixture(scope="package")
def server(model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """On Ray: three decoders, and two of everything else; one for all tests of this package."""
    folder: Path = tmp_path_factory.mktemp("server")
    with Server(
        folder,
        model=model_folder,
        served_model_name="small",
        node_max_tokens=64,
        decoders=3,
        schedulers=2,
        planners=2,
        ingresses=2,
        decoder_cpus=0.5,
        decoder_threads=1,
        kv_budget_mb=256,
        # Of a store on a busy machine.
        redis_timeout_s=2.0,
        body_deadline_s=60,
    ) as running:
        yield running


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow) for name in ("embedded", "server")]
)
def api(request: pytest.FixtureRequest) -> Server:
    """The API in one process, and on Ray."""
    running: Server = request.getfixturevalue(request.param)
    return running


@pytest.fixture
def client(api: Server) -> Iterator[OpenAI]:
    """The official client; retries would hide failures."""
    with OpenAI(base_url=f"{api.url}/v1", api_key="test-key", max_retries=0, timeout=120) as opened:
        yield opened


@pytest.fixture
def http(api: Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer test-key"}
    with httpx.Client(base_url=api.url, headers=headers, timeout=60) as opened:
        yield opened

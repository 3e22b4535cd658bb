"""A Redis Cluster is refused at the start, and named in the log if it comes later."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from deployments.local import LocalApp
from plato.assembly import open_store
from plato.context.cluster import refuse_cluster
from plato.context.embedded import EmbeddedValkey, _binary
from plato.context.redis import RedisContextStore
from plato.errors import SettingsError
from plato.ports import free_port
from plato.settings import Settings
from tests.end_to_end.waiting import wait_until

pytestmark = pytest.mark.hostile

REFUSAL = r"PLATO_REDIS_URL is the URL of a Redis Cluster.*cluster-enabled no"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey in cluster mode, which has no slots yet."""
    port, folder = free_port(), tmp_path_factory.mktemp("cluster")
    command = [_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    # By default the second port lies 10,000 above the first, which is not always a port.
    command += ["--save", "", "--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            with redis.Redis(port=port) as client:
                wait_until(lambda: _answers(client), 10, "the server answers", every_s=0.02)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.kill()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


async def test_no_process_starts_with_a_cluster(cluster: str) -> None:
    settings = Settings(redis_url=cluster)
    with pytest.raises(SettingsError, match=REFUSAL):
        await open_store(settings, "model")


def test_a_local_server_is_refused_before_anything_is_loaded(cluster: str) -> None:
    stages: list[str] = []
    app = LocalApp(Settings(redis_url=cluster, model="/no/such/model"), report=stages.append)
    with pytest.raises(SettingsError, match=REFUSAL):
        app.start()
    assert stages == []


async def test_a_store_that_becomes_a_cluster_is_named_in_the_log(
    cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisContextStore(cluster, timeout_s=5.0)
    assert await store.get_run("acme", "run") is None
    assert not store.available
    assert "Redis Cluster" in caplog.text
    await store.close()


def test_a_single_server_and_an_outage_are_not_refused(
    shared_valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    refuse_cluster(shared_valkey.url)
    refuse_cluster(f"redis://127.0.0.1:{free_port()}/0")
    refuse_cluster(f"unix://{tmp_path}/nothing.sock")

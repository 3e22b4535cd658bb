"""The application on three Ray nodes of this machine; for `test_nodes`.

The head has no work, as on Kubernetes; each of two workers offers a place for one decoder, and
places for everything else. After SIGUSR1 there is one worker more.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

# Before anything imports Ray: it sets what Ray reads once.
from deployments.local import APP_NAME  # isort: skip
import ray
from ray import serve
from ray.cluster_utils import Cluster

from deployments.app import build
from plato.settings import Settings

DECODER, SERVICE = "decoder", "service"
WORKERS = 2
NODE_HEALTH = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
"""How soon Ray takes a node for dead; as on Kubernetes (k8s/base/kustomization.yaml)."""


def add_worker(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=2, resources={DECODER: 1, SERVICE: 6})


def main() -> None:
    """Serve until SIGTERM; arguments are those of `plato serve`."""
    port = int(sys.argv[sys.argv.index("--port") + 1])
    given = dict(argument.split("=", 1) for argument in sys.argv if "=" in argument)
    settings = Settings.model_validate(
        given | {"decoder_resource": DECODER, "service_resource": SERVICE}
    )
    # Its processes read it when they start.
    os.environ.update(NODE_HEALTH)
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0, include_dashboard=False)
        for _ in range(WORKERS):
            add_worker(cluster)
        ray.init(address=cluster.address, log_to_driver=True)
        # All nodes have one address here, which only one proxy can listen at.
        serve.start(http_options={"host": "127.0.0.1", "port": port, "location": "HeadOnly"})
        serve.run(build(settings), name=APP_NAME, route_prefix="/")
        told = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: told.set())
        signal.signal(signal.SIGUSR1, lambda *_: add_worker(cluster))
        while not told.wait(1.0):
            pass
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main()

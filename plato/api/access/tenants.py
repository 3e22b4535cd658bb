"""Whose a request is: by its API key, or by a header that a trusted gateway sets."""

from __future__ import annotations

import hashlib
import re

from starlette.requests import Request

from plato.api.access.keys import TENANT_NAME, KeyFile, Keys, hash_key, read_keys
from plato.engine import Capabilities
from plato.errors import AuthenticationError, HostError, SettingsError
from plato.settings import Settings

MAX_HOST_CHARS = 100
"""Of a name in an error message."""


class Tenants:
    """Tells the tenants of requests; prefixes and runs are shared only within a tenant.

    Without keys and gateway, every key that a client makes up is a tenant of its own.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises `SettingsError` if the configured keys are not valid."""
        self._hosts = settings.allowed_hosts
        self._header = settings.tenant_header
        self._open = not settings.protected
        self._keys = _listed_keys(settings)
        self._file = KeyFile(settings.api_keys_file) if settings.api_keys_file else None

    def of(self, request: Request) -> str:
        """The tenant of a request. Raises `AuthenticationError` and `HostError`."""
        if self._hosts:
            _require_host(request.headers.get("host", ""), self._hosts)
        if self._header is not None:
            return _named(request.headers.getlist(self._header), self._header)
        key = _key(request)
        if self._open:
            return hashed_tenant(key)
        if not key:
            raise AuthenticationError(
                "no API key was sent; send the header Authorization: Bearer KEY"
            )
        hashed = hash_key(key)
        tenant = self._keys.get(hashed)
        if tenant is None and self._file is not None:
            tenant = self._file.keys().get(hashed)
        if tenant is None:
            raise AuthenticationError("the API key is not valid; ask the operator for another")
        return tenant


def refuse_shared_cache(settings: Settings, capabilities: Capabilities) -> None:
    """Raise `SettingsError` if several tenants could share what an engine has cached.

    Then each could learn from how soon answers begin what the others have asked. A file and a
    gateway can name more tenants at any time. Keys that clients make up separate nobody there.
    """
    if capabilities.tenants:
        return
    several = len(set(_listed_keys(settings).values())) > 1
    if several or settings.api_keys_file or settings.tenant_header:
        raise SettingsError(
            "the upstream server cannot separate what it has cached by tenant, so it is for one "
            "tenant; set api_keys to keys of one tenant, without api_keys_file and tenant_header, "
            "or use a server that can (vLLM, SGLang)"
        )


def tenant_of(request: Request) -> str:
    """The tenant of a request that was admitted; see `plato.api.routing`."""
    tenant: str = request.state.tenant
    return tenant


def hashed_tenant(key: str) -> str:
    """The tenant of a key that nobody has checked; empty without a key."""
    return hashlib.blake2b(key.encode(), digest_size=8).hexdigest() if key else ""


def _require_host(host: str, allowed: tuple[str, ...]) -> None:
    """Raise `HostError` if the server may not be called by this name.

    A page can have its own name lead to this machine (DNS rebinding). To the browser its requests
    are then of the same origin, so it may read the answers, but they still have that name.
    """
    name = re.sub(r":[0-9]*$", "", host.lower())
    if name in allowed:
        return
    if any(known.startswith("*.") and name.endswith(known[1:]) for known in allowed):
        return
    raise HostError(
        f"this server is not called {name[:MAX_HOST_CHARS]!r}; use {allowed[0]}, or set "
        "allowed_hosts to all of its names"
    )


def _listed_keys(settings: Settings) -> Keys:
    secret = settings.api_keys
    entries = [] if secret is None else secret.get_secret_value().split(",")
    return read_keys(entries, plain=True)


def _key(request: Request) -> str:
    header = request.headers.get("authorization", "").strip()
    scheme, _, key = header.partition(" ")
    # The names of schemes are case-insensitive (RFC 9110, section 11.1).
    return key.strip() if scheme.lower() == "bearer" else header


def _named(names: list[str], header: str) -> str:
    if len(names) > 1:
        # One of them may be the client's own.
        raise AuthenticationError(
            f"the header {header} was sent {len(names)} times; have the gateway replace it instead "
            "of adding one"
        )
    if not names or not TENANT_NAME.fullmatch(names[0]):
        raise AuthenticationError(
            f"the header {header} does not name a tenant; requests come through the gateway, which "
            "sets it"
        )
    return names[0]

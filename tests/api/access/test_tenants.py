"""Who may ask, and whose the answers are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.requests import Request

from plato.api.access.keys import hash_key
from plato.api.access.tenants import Tenants, hashed_tenant
from plato.errors import AuthenticationError, HostError, SettingsError
from plato.runtime import Runtime
from plato.server.options import secured
from plato.settings import Settings, read_settings
from tests.api.asking import CHAT, RUNS, short
from tests.serving import connect

# One event loop for all tests of the API: the model is loaded once.
pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.hostile]

OLD, NEW, OTHER = (f"sk-plato-0123456789-{name}" for name in ("old", "new", "other"))
KEYS = f"shop={OLD},shop={hash_key(NEW)},lab={OTHER}"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def tenant(settings: Settings, *more: tuple[str, str], **headers: str) -> str:
    sent = [*headers.items(), *more]
    fields = [(name.lower().encode(), value.encode()) for name, value in sent]
    return Tenants(settings).of(Request({"type": "http", "headers": fields}))


async def test_without_keys_clients_are_told_apart_by_what_they_send() -> None:
    settings = Settings()
    assert tenant(settings) == tenant(settings, authorization="Bearer ") == ""
    one, other = (tenant(settings, **bearer(name)) for name in ("one", "other"))
    assert one != other
    assert one == tenant(settings, Authorization="bearer one") == hashed_tenant("one")
    assert "one" not in one


async def test_a_key_names_its_tenant(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"lab={hash_key(OTHER)}\n")
    settings = Settings(api_keys=SecretStr(f"shop={OLD}"), api_keys_file=str(path))
    assert tenant(settings, **bearer(OLD)) == "shop"
    assert tenant(settings, **bearer(OTHER)) == "lab"
    for wrong in ("", "Bearer", f"Bearer {NEW}", f"Basic {OLD}", f"Bearer {hash_key(OLD)}"):
        with pytest.raises(AuthenticationError):
            tenant(settings, authorization=wrong)


async def test_a_gateway_names_the_tenant_in_a_header() -> None:
    settings = Settings(tenant_header="X-Tenant")
    assert tenant(settings, **{"X-Tenant": "ann@example.org"}) == "ann@example.org"
    for wrong in ("", "a b", "x" * 129, "\u00e9"):
        with pytest.raises(AuthenticationError, match="X-Tenant"):
            tenant(settings, **{"X-Tenant": wrong})


@pytest.mark.parametrize("names", [("victim", "me"), ("me", "me"), ("", "me")])
async def test_a_client_cannot_name_a_tenant_beside_its_gateway(names: tuple[str, str]) -> None:
    sent = [("X-Tenant", name) for name in names]
    with pytest.raises(AuthenticationError, match="2 times; have the gateway replace it"):
        tenant(Settings(tenant_header="X-Tenant"), *sent)


async def test_keys_and_a_gateway_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="tenant_header is for gateways"):
        read_settings({"tenant_header": "X-Tenant", "api_keys": KEYS})


async def test_keys_are_not_shown_with_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATO_API_KEYS", KEYS)
    settings = Settings()
    assert settings.protected
    assert OLD not in f"{settings} {settings.model_dump_json()}"


LOCAL = secured(Settings(), "127.0.0.1", allow_anonymous=False).allowed_hosts
NAMED = ("plato.lan", "*.example.org")


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        *((LOCAL, host) for host in ("localhost", "LocalHost:80", "a.localhost:8000")),
        *((LOCAL, host) for host in ("127.0.0.1:8000", "127.0.0.1", "[::1]:8000", "[::1]")),
        *((NAMED, host) for host in ("plato.lan", "a.b.example.org:443")),
        ((), "rebound.example.com"),
    ],
)
async def test_a_server_answers_to_its_names(allowed: tuple[str, ...], host: str) -> None:
    assert tenant(Settings(allowed_hosts=allowed), host=host) == ""


@pytest.mark.parametrize(
    ("allowed", "host"),
    [
        *((LOCAL, host) for host in ("", "rebound.example.com:8000", "127.0.0.1.example.com")),
        *((LOCAL, host) for host in ("notlocalhost", "localhost:80@example.com", "[::1", "::1")),
        *((NAMED, host) for host in ("localhost", "example.org", "plato.lan.example.com")),
    ],
)
async def test_a_server_does_not_answer_to_other_names(allowed: tuple[str, ...], host: str) -> None:
    with pytest.raises(HostError, match="set allowed_hosts to all of its names"):
        tenant(Settings(allowed_hosts=allowed), host=host)


async def test_a_page_whose_name_leads_here_is_refused(runtime: Runtime) -> None:
    settings = runtime.settings.model_copy(update={"allowed_hosts": LOCAL})
    async with connect(runtime.service, settings) as http:
        headers = {**bearer("any"), "Host": "rebound.example.com:8000"}
        for method, path in (("GET", RUNS), ("POST", CHAT)):
            refused = await http.request(method, path, headers=headers, content=b"{")
            assert refused.status_code == httpx.codes.FORBIDDEN
            error = refused.json()["error"]
            assert error["code"] == "host_not_allowed"
            assert "'rebound.example.com'; use localhost" in error["message"]
        headers["Host"] = "localhost:8000"
        assert (await http.get(RUNS, headers=headers)).status_code == httpx.codes.OK


def connected(runtime: Runtime, **fields: Any) -> httpx.AsyncClient:
    settings = runtime.settings.model_copy(update={"api_keys": SecretStr(KEYS), **fields})
    return connect(runtime.service, settings)


@pytest.mark.parametrize("headers", [{}, bearer("sk-plato-unknown-key")], ids=["none", "unknown"])
async def test_without_a_valid_key_nothing_is_answered(
    runtime: Runtime, headers: dict[str, str]
) -> None:
    async with connected(runtime) as http:
        for method, path in (("POST", CHAT), ("POST", RUNS), ("GET", "/v1/models")):
            refused = await http.request(method, path, headers=headers, content=b"{")
            assert refused.status_code == httpx.codes.UNAUTHORIZED
            assert refused.headers["www-authenticate"] == "Bearer"
            error = refused.json()["error"]
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        for path in ("/healthz", "/readyz"):
            assert (await http.get(path)).status_code == httpx.codes.OK
        assert (await http.options(CHAT)).status_code == httpx.codes.NO_CONTENT


async def test_the_runs_of_a_tenant_are_found_with_each_of_its_keys(runtime: Runtime) -> None:
    async with connected(runtime) as http:
        opened = await http.post(RUNS, json=short(), headers=bearer(OLD))
        location = opened.headers["location"]
        assert (await http.get(location, headers=bearer(NEW))).status_code == httpx.codes.OK
        found = await http.get(location, headers=bearer(OTHER))
        assert found.status_code == httpx.codes.NOT_FOUND

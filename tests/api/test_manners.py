"""What clients can rely on whatever they ask: ids, methods, slashes, other origins."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from plato.errors import SettingsError
from plato.runtime import Runtime
from plato.settings import Settings, read_settings
from tests.api.asking import CHAT, RUNS, short
from tests.api.test_app import BrokenService
from tests.serving import connect

# One event loop for all tests of the API: the model is loaded once.
pytestmark = pytest.mark.asyncio(loop_scope="package")

PAGE = "https://chat.example.org"
ASKING = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_id_of_a_question_is_that_of_its_run(
    http: httpx.AsyncClient, *, stream: bool
) -> None:
    answered = await http.post(CHAT, json=short(stream=stream))
    assert (await http.get(f"{RUNS}/{answered.headers['x-request-id']}")).status_code == 200


async def test_every_response_has_an_id(http: httpx.AsyncClient, runtime: Runtime) -> None:
    responses = [await http.get(path) for path in ("/healthz", "/v1/models", "/none")]
    responses.append(await http.post(CHAT, json={}))
    async with connect(BrokenService(runtime.service, KeyError("x")), runtime.settings) as broken:
        responses.append(await broken.post(CHAT, json=short()))
    assert responses[-1].status_code == 500
    assert len({response.headers["x-request-id"] for response in responses}) == len(responses)


@pytest.mark.hostile
@pytest.mark.parametrize("name", ["%0d%0aSet-Cookie:%20a=b", "%E2%98%80", "x" * 500, "a%20b"])
async def test_an_id_is_never_what_a_client_makes_up(http: httpx.AsyncClient, name: str) -> None:
    refused = await http.get(f"{RUNS}/{name}")
    assert refused.status_code == 404
    assert len(refused.headers["x-request-id"]) == 32
    assert "set-cookie" not in refused.headers


async def test_a_slash_at_the_end_changes_nothing(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/models/")).json() == (await http.get("/v1/models")).json()
    assert (await http.post(f"{CHAT}/", json=short())).status_code == 200
    location = (await http.post(f"{RUNS}//", json=short())).headers["location"]
    assert (await http.get(f"{location}/")).status_code == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (CHAT, "HEAD, OPTIONS, POST"),
        (f"{RUNS}/x", "DELETE, GET, HEAD, OPTIONS"),
        ("/healthz", "GET, HEAD, OPTIONS"),
    ],
)
async def test_options_are_told(http: httpx.AsyncClient, path: str, methods: str) -> None:
    told = await http.options(path)
    assert (told.status_code, told.headers["allow"], told.text) == (204, methods, "")
    assert "access-control-allow-origin" not in told.headers


async def test_a_head_says_whether_there_is_something(http: httpx.AsyncClient) -> None:
    assert (await http.head("/v1/models")).status_code == 200
    assert (await http.head(CHAT)).status_code == 204
    assert (await http.head(f"{RUNS}/none")).status_code == 404


async def test_an_unknown_path_is_told_what_there_is(http: httpx.AsyncClient) -> None:
    error = (await http.post("/v1/embeddings", json={})).json()["error"]
    assert error["code"] == "not_found"
    assert f"this server has /healthz, /openapi.json, /readyz, {CHAT}, " in error["message"]


async def test_pages_of_other_origins_may_not_ask(http: httpx.AsyncClient) -> None:
    answered = await http.post(CHAT, json=short(), headers={"Origin": PAGE})
    assert "access-control-allow-origin" not in answered.headers


@pytest.mark.parametrize("origins", [PAGE, f"http://localhost:3000, {PAGE}"])
async def test_pages_of_origins_that_the_settings_name_may(runtime: Runtime, origins: str) -> None:
    named = read_settings({"cors_origins": origins}).cors_origins
    settings = runtime.settings.model_copy(update={"cors_origins": named})
    async with connect(runtime.service, settings) as http:
        asked = {**ASKING, "Access-Control-Request-Headers": "authorization, x-stainless-os"}
        allowed = await http.options(CHAT, headers=asked)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert "authorization" in allowed.headers["access-control-allow-headers"]
        answered = await http.post(CHAT, json=short(), headers={"Origin": PAGE})
        assert answered.headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in answered.headers["access-control-expose-headers"]
        refused = await http.post(CHAT, json={"n": 2}, headers={"Origin": PAGE})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (400, PAGE)
        others = {**ASKING, "Origin": "https://example.com"}
        assert (await http.options(CHAT, headers=others)).status_code == 400


async def test_pages_can_read_that_the_server_failed(runtime: Runtime) -> None:
    settings = runtime.settings.model_copy(update={"cors_origins": (PAGE,)})
    async with connect(BrokenService(runtime.service, KeyError("x")), settings) as broken:
        failed = await broken.post(CHAT, json=short(), headers={"Origin": PAGE})
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "internal_error")
    assert failed.headers["access-control-allow-origin"] == PAGE
    assert "x-request-id" in failed.headers["access-control-expose-headers"]
    assert len(failed.headers.get_list("x-request-id")) == 1


async def test_origins_are_set_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().cors_origins == ()
    monkeypatch.setenv("PLATO_CORS_ORIGINS", f"{PAGE},*")
    assert Settings().cors_origins == (PAGE, "*")
    for wrong in ("chat.example.org", f"{PAGE}/path"):
        with pytest.raises(SettingsError, match="cors_origins"):
            read_settings({"cors_origins": wrong})


@pytest.mark.hostile
async def test_a_page_cannot_ask_by_leaving_the_type_of_its_body_out(
    http: httpx.AsyncClient,
) -> None:
    """A browser asks for no permission then, and the question would be answered."""
    content: Any = json.dumps(short()).encode()
    assert (await http.post(CHAT, content=content)).status_code == 200
    refused = await http.post(CHAT, content=content, headers={"Origin": PAGE})
    assert refused.status_code == 415

"""What is added to the proxies of Ray Serve."""

from __future__ import annotations

import httpx
import pytest
from ray.serve._private.http_util import _apply_middlewares
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.proxy import middleware
from plato.api.manners import REQUEST_ID


def answering(headers: dict[str, str]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("ok", headers=headers)(scope, receive, send)

    return app


@pytest.mark.parametrize(("headers", "own"), [({REQUEST_ID: "run-1"}, True), ({}, False)])
async def test_a_response_has_one_id_its_own_if_it_has_one(
    headers: dict[str, str], own: bool
) -> None:
    app = _apply_middlewares(answering(headers), middleware())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
        answered = await http.get("http://plato/")
    (found,) = answered.headers.get_list(REQUEST_ID)
    assert (found == "run-1") is own

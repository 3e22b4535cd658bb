"""The OpenAPI document tells what upstreams answer themselves."""

from __future__ import annotations

from tests.api.passthrough.fronts import Front


async def test_paths_and_answers_of_the_upstream_are_documented(front: Front) -> None:
    async with front.http() as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    for path in ("/v1/embeddings", "/v1/chat/completions", "/v1/completions", "/v1/responses"):
        assert "default" in paths[path]["post"]["responses"]
    assert "default" not in paths["/v1/runs"]["post"]["responses"]

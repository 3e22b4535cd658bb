"""Requests of the API's tests, and their responses taken apart."""

from __future__ import annotations

import json
from typing import Any

import httpx

CHAT, RUNS = "/v1/chat/completions", "/v1/runs"
QUESTION = [{"role": "user", "content": "Why is the sea salty?"}]
PLAN = [
    {"title": "Salt", "max_tokens": 6},
    {"title": "Depth", "max_tokens": 6, "dependencies": [1]},
]


def short(**fields: Any) -> dict[str, Any]:
    """A body that asks for two parts of six tokens."""
    plato = {"mode": "plato", "plan": PLAN, **fields.pop("plato", {})}
    return {"model": "tiny", "messages": QUESTION, "plato": plato, **fields}


def long(**fields: Any) -> dict[str, Any]:
    """A body that asks for seconds of decoding."""
    plato = {"mode": "sequential", "exact_lengths": True, **fields.pop("plato", {})}
    return {"model": "tiny", "messages": QUESTION, "max_tokens": 1500, "plato": plato, **fields}


def server_sent(response: httpx.Response) -> list[dict[str, str]]:
    """The fields of every event."""
    assert response.status_code == httpx.codes.OK
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    blocks = [block for block in response.text.split("\n\n") if block]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


def chunks_of(response: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a completion that went well."""
    datas = [event["data"] for event in server_sent(response)]
    assert datas.pop() == "[DONE]"
    return [json.loads(data) for data in datas]


def text_of(chunks: list[dict[str, Any]]) -> str:
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)

"""Streamed answers, and when their text came."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx


@dataclass
class Watched:
    """A stream and when its text came, in seconds since the question."""

    status: int = 0
    retry_after: str | None = None
    """The header of that name."""
    answered_s: float = 0.0
    text_s: list[float] = field(default_factory=list)

    @property
    def first_text_s(self) -> float:
        """Until the first text."""
        return self.text_s[0]

    @property
    def streaming_s(self) -> float:
        """From the first to the last text."""
        return self.text_s[-1] - self.text_s[0]

    @property
    def longest_gap_s(self) -> float:
        """Between two texts."""
        return max(later - earlier for earlier, later in pairwise(self.text_s))


class Clients:
    """Asks a server, as one tenant or another."""

    def __init__(self, url: str, model: str, http: httpx.AsyncClient) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._model = model
        self._http = http

    async def ask(
        self, messages: list[str], tenant: str = "", max_tokens: int | None = None
    ) -> Watched:
        """Stream an answer; with `max_tokens`, of exactly so many tokens, in one part."""
        body: dict[str, Any] = {
            "model": self._model,
            "stream": True,
            "messages": [{"role": "user", "content": text} for text in messages],
        }
        if max_tokens is not None:
            body |= {
                "max_tokens": max_tokens,
                "plato": {"mode": "sequential", "exact_lengths": True},
            }
        headers = {"Authorization": f"Bearer {tenant}"} if tenant else {}
        content = json.dumps(body)
        watched, began = Watched(), time.perf_counter()
        async with self._http.stream(
            "POST",
            self._url,
            content=content,
            headers={"Content-Type": "application/json", **headers},
        ) as response:
            watched.status = response.status_code
            watched.retry_after = response.headers.get("Retry-After")
            if response.is_server_error:
                raise RuntimeError((await response.aread()).decode())
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if "error" in chunk:
                    raise RuntimeError(chunk["error"]["message"])
                if any(choice["delta"].get("content") for choice in chunk["choices"]):
                    watched.text_s.append(time.perf_counter() - began)
        watched.answered_s = time.perf_counter() - began
        return watched

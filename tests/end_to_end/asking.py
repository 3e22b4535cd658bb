"""Eight clients that stream their answers, and what they see of disturbances."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.end_to_end.server import Server

QUESTIONS = [
    "What should I know about trains?",
    "How does a garden change over a year?",
    "What is good about living in a city?",
    "How do I learn to swim?",
    "What happens in a bakery at night?",
    "Why do people collect stamps?",
    "How is paper made?",
    "What makes a good holiday?",
]
PLAN = [
    {"title": "The beginning", "max_tokens": 24},
    {"title": "The middle", "max_tokens": 64, "dependencies": [1]},
    {"title": "Another side", "max_tokens": 64},
    {"title": "The end", "max_tokens": 24, "dependencies": [2, 3]},
]
DEADLINE_S = 150.0


@dataclass
class Followed:
    """What a client got of one answer."""

    run: str = ""
    text: str = ""
    error: str = ""
    restarts: int = 0
    repeated: int = 0
    longest_silence_s: float = 0.0
    info: dict[str, Any] = field(default_factory=dict)
    parts: dict[int, int] = field(default_factory=dict)
    started: threading.Event = field(default_factory=threading.Event)
    ended: float = 0.0
    """When, by the monotonic clock."""

    def take(self, chunk: dict[str, Any]) -> None:
        """One chunk of the stream."""
        if "error" in chunk:
            self.error = chunk["error"]["message"]
            return
        self.run = chunk["id"].removeprefix("chatcmpl-")
        if not chunk["choices"]:
            return
        self.text += chunk["choices"][0]["delta"].get("content") or ""
        plato = chunk.get("plato") or {}
        event = plato.get("event")
        if event is None:
            self.info = plato or self.info
        elif event["type"] == "node_queued":
            self.restarts += event["attempt"] > 0
        elif event["type"] == "node_output":
            number, tokens = event["number"], event["tokens"]
            count = tokens if isinstance(tokens, int) else len(tokens)
            have = self.parts.get(number, 0)
            self.repeated += max(0, have - event["offset"]) if event["offset"] else 0
            self.parts[number] = max(have, event["offset"] + count)
            if sum(self.parts.values()) > 12:
                self.started.set()


def ask(server: Server, question: str, followed: Followed) -> Followed:
    """Stream one answer."""
    body = {
        "model": "small",
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        "plato": {"mode": "plato", "plan": PLAN, "exact_lengths": True, "events": True},
    }
    heard = time.monotonic()
    try:
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=body, timeout=DEADLINE_S
        ) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    now = time.monotonic()
                    followed.longest_silence_s = max(followed.longest_silence_s, now - heard)
                    heard = now
                    followed.take(json.loads(line.removeprefix("data: ")))
    except httpx.HTTPError as error:
        followed.error = repr(error)
    followed.ended = time.monotonic()
    followed.started.set()
    return followed


def ask_all(server: Server, disturb: Any = None) -> list[Followed]:
    """Eight answers at the same time; `disturb` is called when all of them are under way."""
    followed = [Followed() for _ in QUESTIONS]
    with ThreadPoolExecutor(len(QUESTIONS)) as threads:
        answers = [
            threads.submit(ask, server, question, one)
            for question, one in zip(QUESTIONS, followed, strict=True)
        ]
        if disturb is not None:
            for one in followed:
                one.started.wait(DEADLINE_S)
            disturb()
        for answer in answers:
            answer.result(DEADLINE_S)
    return followed


def report(what: str, answers: list[Followed]) -> None:
    """What the answers have cost."""
    print(
        f"\n{what}: {sum(one.restarts for one in answers)} parts started again, "
        f"{sum(one.repeated for one in answers)} tokens sent twice, longest silence "
        f"{max(one.longest_silence_s for one in answers):.1f} s, degraded: "
        f"{sorted({what for one in answers for what in one.info.get('degraded', ())})}"
    )

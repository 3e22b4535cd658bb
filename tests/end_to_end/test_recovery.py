"""Processes die and hang under eight runs; every answer is that of an undisturbed run."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.conftest import wait_until
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
    {"title": "The middle", "max_tokens": 40, "dependencies": [1]},
    {"title": "Another side", "max_tokens": 40},
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
        elif event["type"] == "node_started":
            self.restarts += event["attempt"] > 0
        elif event["type"] == "node_output":
            number, tokens = event["number"], event["tokens"]
            count = tokens if isinstance(tokens, int) else len(tokens)
            have = self.parts.get(number, 0)
            self.repeated += max(0, have - event["offset"]) if event["offset"] else 0
            self.parts[number] = max(have, event["offset"] + count)
            if sum(self.parts.values()) > 16:
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


@pytest.fixture(scope="module")
def server(model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three decoders, and two of everything else."""
    folder: Path = tmp_path_factory.mktemp("server")
    with Server(
        folder,
        model=model_folder,
        served_model_name="small",
        dtype="float32",
        decoders=3,
        schedulers=2,
        planners=2,
        ingresses=2,
        decoder_cpus=0.5,
        decoder_threads=1,
        kv_budget_mb=256,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(server: Server) -> list[str]:
    answers = ask_all(server)
    assert [one.error for one in answers] == [""] * len(QUESTIONS)
    return [one.text for one in answers]


def report(what: str, answers: list[Followed]) -> None:
    """What the answers have cost."""
    print(
        f"\n{what}: {sum(one.restarts for one in answers)} parts started again, "
        f"{sum(one.repeated for one in answers)} tokens sent twice, longest silence "
        f"{max(one.longest_silence_s for one in answers):.1f} s, degraded: "
        f"{sorted({what for one in answers for what in one.info.get('degraded', ())})}"
    )


def kill(server: Server, deployment: str, sig: signal.Signals = signal.SIGKILL) -> None:
    """Signal the oldest replica of a deployment."""
    server.replicas(deployment)[0].send_signal(sig)


@pytest.mark.parametrize("victim", ["Decoder", "SchedulerService", "PlannerService"])
def test_a_killed_process_costs_time_and_no_word(
    server: Server, undisturbed: list[str], victim: str
) -> None:
    answers = ask_all(server, lambda: kill(server, victim))
    report(f"{victim} killed", answers)
    assert [one.error for one in answers] == [""] * len(QUESTIONS)
    assert [one.text for one in answers] == undisturbed
    wait_until(server.ready, 60, "ready again")


def test_a_decoder_that_hangs(server: Server, undisturbed: list[str]) -> None:
    answers = ask_all(server, lambda: kill(server, "Decoder", signal.SIGSTOP))
    report("a decoder stopped", answers)
    assert [one.error for one in answers] == [""] * len(QUESTIONS)
    assert [one.text for one in answers] == undisturbed


def test_a_store_that_dies_and_comes_back(server: Server, undisturbed: list[str]) -> None:
    def disturb() -> None:
        for process in server.processes("valkey-server"):
            process.kill()

    answers = ask_all(server, disturb)
    report("Valkey killed", answers)
    assert [one.error for one in answers] == [""] * len(QUESTIONS)
    assert [one.text for one in answers] == undisturbed
    # It is started again, empty; runs that it has missed are written again.

    def known() -> bool:
        found = [httpx.get(f"{server.url}/v1/runs/{one.run}", timeout=10) for one in answers]
        return all(
            answer.status_code == httpx.codes.OK and answer.json()["status"] == "done"
            for answer in found
        )

    wait_until(known, 30, "all runs are in the store")


def test_an_ingress_that_dies(server: Server, undisturbed: list[str]) -> None:
    answers = ask_all(server, lambda: kill(server, "Ingress"))
    cut = [one for one in answers if one.error]
    report(f"an ingress killed, {len(cut)} connections broken", answers)

    # A broken connection loses no answer: it can be had by the run's id from another ingress.
    def ended(run: str) -> bool:
        answer = httpx.get(f"{server.url}/v1/runs/{run}", timeout=10)
        return answer.status_code == httpx.codes.OK and answer.json()["status"] == "done"

    for one in cut:
        wait_until(lambda one=one: ended(one.run), 60, "the run is done")
        one.text = httpx.get(f"{server.url}/v1/runs/{one.run}", timeout=10).json()["answer"]
    assert [one.text for one in answers] == undisturbed


def test_a_run_whose_scheduler_dies_is_followed_to_its_end(
    server: Server, undisturbed: list[str]
) -> None:
    body = {
        "model": "small",
        "messages": [{"role": "user", "content": QUESTIONS[0]}],
        "plato": {"mode": "plato", "plan": PLAN, "exact_lengths": True},
    }
    runs = [httpx.post(f"{server.url}/v1/runs", json=body, timeout=30).json()["id"] for _ in "ab"]
    wait_until(
        lambda: all(
            httpx.get(f"{server.url}/v1/runs/{run}", timeout=10).json()["answer"] for run in runs
        ),
        30,
        "both runs have some text",
    )
    # Whichever drives them.
    for process in server.replicas("SchedulerService"):
        process.kill()
        time.sleep(1.0)
    for run in runs:
        text, last = "", ""
        url = f"{server.url}/v1/runs/{run}/events"
        with httpx.stream("GET", url, timeout=DEADLINE_S) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    data = json.loads(line.removeprefix("data: "))
                    text = text[: data["text_offset"]] + data["text"]
                    last = data["type"]
        assert last == "run_finished"
        assert text == undisturbed[0]

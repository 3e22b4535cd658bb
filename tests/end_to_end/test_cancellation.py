"""Nobody decodes for nobody: a client that goes away, a scheduler that is killed."""

from __future__ import annotations

import threading
import time

import httpx
import psutil
import pytest

from deployments.local import LocalApp
from tests.end_to_end.conftest import decoder_stats
from tests.end_to_end.waiting import wait_until

DEADLINE_S = 2.0
PLAN = [{"title": f"Part {letter}", "max_tokens": 400} for letter in "ABCD"]


def body(*, stream: bool) -> dict[str, object]:
    return {
        "model": "small",
        "messages": [{"role": "user", "content": "Tell me everything about the sea."}],
        "stream": stream,
        "plato": {"mode": "plato", "plan": PLAN, "exact_lengths": True},
    }


def of_another_server(process: psutil.Process) -> bool:
    """Whether it belongs to a server that other tests have started as a command."""
    return any("plato.cli" in " ".join(parent.cmdline()) for parent in process.parents())


def decoding() -> bool:
    return len(decoder_stats().live) == len(PLAN)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_disconnects_ends_its_sequences(app: LocalApp, stream: bool) -> None:
    url = f"{app.url}/v1/chat/completions"
    leave = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=60) as http:
            if stream:
                with http.stream("POST", url, json=body(stream=True)):
                    leave.wait(30)
            else:
                with pytest.raises(httpx.ReadTimeout):
                    http.post(url, json=body(stream=False), timeout=4)

    client = threading.Thread(target=ask)
    client.start()
    wait_until(decoding, 20, "the parts are decoded")
    leave.set()
    client.join(30)
    took = wait_until(lambda: not decoder_stats().live, DEADLINE_S, "no sequence is left")
    print(f"stream={stream}: sequences gone {took:.2f} s after the client")


def test_a_killed_scheduler_ends_its_sequences_and_the_next_one_the_answer(app: LocalApp) -> None:
    url = f"{app.url}/v1/chat/completions"
    seen: list[str] = []

    def ask() -> None:
        with httpx.stream("POST", url, json=body(stream=True), timeout=120) as response:
            seen.extend(line for line in response.iter_lines() if line)

    client = threading.Thread(target=ask)
    client.start()
    wait_until(decoding, 20, "the parts are decoded")
    (scheduler,) = (
        process
        for process in psutil.Process().children(recursive=True)
        if "SchedulerService" in " ".join(process.cmdline()) and not of_another_server(process)
    )
    scheduler.kill()
    killed = time.monotonic()
    wait_until(lambda: not decoder_stats().live, 10, "no sequence is left")
    # Ray holds up the replica's answers for a second here; the engine says when it last stepped.
    took = time.monotonic() - killed - decoder_stats().idle_s
    print(f"nothing decoded any more {took:.2f} s after the scheduler")
    assert took < DEADLINE_S
    # Serve starts another scheduler, which goes on with the answer.
    client.join(120)
    assert not client.is_alive()
    assert seen[-1] == "data: [DONE]"

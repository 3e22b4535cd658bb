"""No orphaned work: a client that disconnects."""

from __future__ import annotations

import json
import threading
from http.client import HTTPConnection

import httpx
import pytest

from tests.end_to_end.server import Server
from tests.end_to_end.waiting import wait_until

DEADLINE_S = 4.0
"""Metrics are up to two seconds old."""
PLAN = [{"title": f"Part {letter}", "max_tokens": 800} for letter in "ABCD"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_disconnects_ends_its_sequences(api: Server, stream: bool) -> None:
    url = f"{api.url}/v1/chat/completions"
    body = {
        "model": "small",
        "messages": [{"role": "user", "content": "Tell me everything about the sea."}],
        "stream": stream,
        "plato": {"mode": "plato", "plan": PLAN, "exact_lengths": True},
    }
    leave = threading.Event()

    def ask() -> None:
        if stream:
            with httpx.Client(timeout=60) as http, http.stream("POST", url, json=body):
                leave.wait(30)
        else:
            # As a client does whose own deadline has passed: it hangs up before there is an answer.
            connection = HTTPConnection(*api.address, timeout=60)
            connection.request("POST", url, json.dumps(body), {"Content-Type": "application/json"})
            leave.wait(30)
            connection.close()

    client = threading.Thread(target=ask)
    client.start()
    wait_until(lambda: api.live() == len(PLAN), 20, "the parts are decoded", every_s=0.2)
    leave.set()
    client.join(30)
    wait_until(lambda: api.live() == 0, DEADLINE_S, "no sequence is left", every_s=0.2)

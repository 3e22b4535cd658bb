"""Half-open requests and unread streams hold nobody up behind the Serve proxy either."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import httpx
import pytest

from tests.end_to_end.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.hostile]

UPLOADS = 900
"""More than the two ingresses would take if each had only as many slots as there are runs."""
FOLLOWERS = 60
ANSWER_S = 45.0
"""Less than a body may take there."""


def test_half_requests_and_unread_streams_hold_nobody_up(server: Server) -> None:
    question = {
        "model": "small",
        "messages": [{"role": "user", "content": "Why is the sea salty?"}],
    }
    headers = {"Authorization": "Bearer loud"}
    with ExitStack() as opened, httpx.Client(base_url=server.url, timeout=ANSWER_S) as http:

        def half(request: bytes) -> socket.socket:
            client = opened.enter_context(socket.create_connection(server.address, timeout=30))
            client.sendall(request)
            return client

        asked = {**question, "max_tokens": 500, "plato": {"mode": "sequential"}}
        run = http.post("/v1/runs", json=asked, headers=headers).json()["id"]
        follow = (
            b"GET /v1/runs/%s/events HTTP/1.1\r\nHost: localhost\r\n"
            b"Authorization: Bearer loud\r\n\r\n"
        )
        followers = [half(follow % run.encode()) for _ in range(FOLLOWERS)]
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        )
        for _ in range(UPLOADS):
            half(head)
        time.sleep(1)  # Until they have reached the ingresses.
        for path in ("/healthz", "/readyz"):
            assert http.get(path).is_success
        assert http.post("/v1/chat/completions", json={**question, "max_tokens": 4}).is_success
        http.delete(f"/v1/runs/{run}", headers=headers).raise_for_status()
        statuses = {client.recv(12) for client in followers}
        assert statuses == {b"HTTP/1.1 200", b"HTTP/1.1 429"}


def test_a_page_whose_name_leads_to_this_machine_is_refused(server: Server) -> None:
    headers = {"Authorization": "Bearer any", "Host": "rebound.example.com"}
    refused = httpx.get(f"{server.url}/v1/runs", headers=headers)
    assert refused.status_code == httpx.codes.FORBIDDEN
    assert refused.json()["error"]["code"] == "host_not_allowed"

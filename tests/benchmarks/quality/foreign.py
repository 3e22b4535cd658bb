"""A server that speaks OpenAI's protocol and is not Plato; it always answers the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "Rain is water. [[1>2]]"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send(json.dumps({"data": [{"id": "large", "owned_by": "somebody"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if "plato" in body:
            self.send_error(400)
        elif body.get("stream"):
            end = {"delta": {}, "finish_reason": "length"}
            chunks: list[dict[str, Any]] = [
                {"choices": [{"delta": {"content": ANSWER}, "finish_reason": None}]},
                {"choices": [end]},
                {"choices": [], "usage": {"completion_tokens": 7, "prompt_tokens": 3}},
            ]
            lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
            self._send(f"{lines}data: [DONE]\n\n")
        else:
            self._send(json.dumps({"choices": [{"message": {"content": ANSWER}}]}))

    def _send(self, text: str) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def foreign_server() -> Iterator[str]:
    """Its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

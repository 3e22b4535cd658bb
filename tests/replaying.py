"""A real HTTP server that plays prepared answers, for clients of Plato."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from plato.api.runs.events import describe_event
from plato.runs import Event

DONE = b"data: [DONE]\n\n"
DEADLINE_S = 10.0
Piece = bytes | threading.Event | None


def event(chunk: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(chunk)}\n\n".encode()


def delta(text: str = "", finish: str | None = None, **plato: Any) -> bytes:
    """A chunk of a completion with text, an event or the final report."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return event({"choices": [choice], **({"plato": plato} if plato else {})})


def happened(event: Event) -> bytes:
    """A chunk that tells what happens to a part."""
    return delta(event=describe_event(event))


def error(message: str, **fields: Any) -> dict[str, Any]:
    """A body that reports an error in OpenAI's shape."""
    return {"error": {"message": message, "type": "t", "param": None, "code": None, **fields}}


class ReplayServer:
    """Answers health checks, lists one model, and plays `pieces` for every completion.

    It waits where a piece is an event, and hangs up without an end of the stream after `None`.
    As the events of a run each connection gets the pieces that are left.
    """

    def __init__(
        self,
        *pieces: Piece,
        status: int = 200,
        models: bytes = b'{"data": [{"id": "small"}]}',
    ) -> None:
        self.pieces = pieces
        self._events = iter(pieces)
        self.status = status
        self.models = models
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.left = threading.Event()
        """Set when a client has gone in the middle of an answer."""
        self._stopping = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path.endswith("/events"):
                    server.headers.append(dict(self.headers))
                    server.play(self, server._events)
                    return
                found = {"/healthz": b'{"status": "ok"}', "/v1/models": server.models}
                body = found.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                server.bodies.append(json.loads(self.rfile.read(length)))
                server.headers.append(dict(self.headers))
                server.play(self, server.pieces)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def play(self, handler: BaseHTTPRequestHandler, pieces: Iterable[Piece]) -> None:
        """Send the pieces as chunks (RFC 9112, section 7.1)."""
        handler.send_response(self.status)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            for piece in pieces:
                if piece is None:
                    handler.close_connection = True
                    return
                if isinstance(piece, threading.Event):
                    self._wait(piece, handler)
                    continue
                handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            handler.close_connection = True
            self.left.set()

    def _wait(self, piece: threading.Event, handler: BaseHTTPRequestHandler) -> None:
        """Wait, and say by comments that somebody is still there."""
        comment = b"a\r\n: waiting\n\r\n"
        while not piece.wait(0.02) and not self._stopping.is_set():
            handler.wfile.write(comment)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE_S)

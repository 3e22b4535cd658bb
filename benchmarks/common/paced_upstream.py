"""A server that looks like vLLM's and says one token after the other at a fixed pace.

    python -m benchmarks.common.paced_upstream PORT

It computes nothing and knows no framework, so that what it costs is small beside what stands in
front of it. Every answer to `/v1/chat/completions` is a stream of `max_tokens` tokens.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from plato.ports import free_port

TOKEN_S = 0.005
MODEL = "paced"
START_DEADLINE_S = 30.0
CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": MODEL,
    "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}],
}
EVENT = f"data: {json.dumps(CHUNK)}\n\n".encode()
DONE = b"data: [DONE]\n\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def paced_upstream() -> Iterator[str]:
    """The URL of one in a process of its own, which ends with the context."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "-m", __name__, str(port)])
    try:
        deadline = time.monotonic() + START_DEADLINE_S
        while not _is_up(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the paced upstream did not start")
            time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def _is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=1, trust_env=False).is_success
    except httpx.HTTPError:
        return False


async def serve(port: int) -> None:
    """Serve until the process is killed."""
    server = await asyncio.start_server(_connection, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


async def _connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            _, _, length = head.partition(b"content-length:")
            body = await reader.readexactly(int(length.split(b"\r\n")[0] or 0))
            await _respond(head.split()[1].decode(), body, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        # The client has left.
        pass
    finally:
        writer.close()


async def _respond(path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
    if path == "/v1/chat/completions":
        writer.write(STREAM)
        await _say(json.loads(body)["max_tokens"], writer)
        return
    answers = {
        "/health": {},
        "/v1/models": {"data": [{"id": MODEL, "owned_by": "vllm", "max_model_len": 8192}]},
    }
    status = "200 OK" if path in answers else "404 Not Found"
    text = json.dumps(answers.get(path, {"detail": "Not Found"})).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
    writer.write(f"{head}\r\n\r\n".encode() + text)
    await writer.drain()


async def _say(tokens: int, writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(tokens):
        due += TOKEN_S
        await asyncio.sleep(due - loop.time())
        _write(EVENT, writer)
        # Raises if the client has left.
        await writer.drain()
    _write(DONE, writer)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def _write(event: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(event), event))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))

"""An upstream that decodes for Plato's parts, and answers whole requests by a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.engine.upstream.server import MODEL, Body
from tests.engine.upstream.wires import VllmServer

OK = 200
WORDS = ("The", " sea", " is", " s", "älty", ".")


class Upstream(VllmServer):
    """A vLLM server with more of its API."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.passed: list[tuple[str, Body]] = []
        """Path and body of every request for a whole answer."""
        self.headers: list[dict[str, str]] = []
        self.paths = {"/v1/chat/completions", "/v1/responses", "/v1/embeddings"}
        """Those that it has."""
        self.status = self.health_status = self.models_status = 200
        self.breaks: str | None = None
        """The media type of whole answers that it breaks off."""
        self.checks = 0
        """Times that its health was asked for."""
        self.late_s = self.pause_s = 0.0
        """Before answers about its health, and after each event of a stream."""
        self.left = asyncio.Event()
        """A client has left in mid-stream."""
        self.hold = asyncio.Event()
        """Answers, and streams after their first words, wait until it is set."""
        self.hold.set()

    def more_routes(self) -> list[Route]:
        return [
            Route(path, self._pass, methods=["POST"])
            for path in ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/score")
        ]

    async def _health(self, request: Request) -> Response:
        self.checks += 1
        await asyncio.sleep(self.late_s)
        return Response(status_code=self.health_status)

    async def _models(self, request: Request) -> Response:
        if self.models_status != OK:
            return JSONResponse({"error": {"message": "no sk-secret"}}, self.models_status)
        return await super()._models(request)

    async def _pass(self, request: Request) -> Response:
        path = request.url.path
        if path not in self.paths:
            return JSONResponse({"detail": "Not Found"}, 404)
        body = await request.json()
        self.passed.append((path, body))
        self.headers.append(dict(request.headers))
        if self.status != OK:
            headers = {"retry-after": "7", "x-internal": "secret", "set-cookie": "a=b"}
            headers |= {"location": "http://10.0.0.1/v1"}
            error = {"message": f"no {self.status}", "type": "server", "code": self.status}
            return JSONResponse({"error": error}, self.status, headers)
        if self.breaks is not None:
            return StreamingResponse(_broken_off(), media_type=self.breaks)
        if not body.get("stream"):
            await self._hold(request)
        if path == "/v1/embeddings":
            data = [{"object": "embedding", "index": 0, "embedding": [0.25, -1.5]}]
            return JSONResponse(
                {"object": "list", "model": MODEL, "data": data, "usage": usage(3, 0)}
            )
        if path == "/v1/responses":
            return JSONResponse(response_object(body))
        if body.get("stream"):
            return StreamingResponse(self._chunks(body), media_type="text/event-stream")
        return JSONResponse(completion(body))

    async def _hold(self, request: Request) -> None:
        """Wait until nothing is held back, or the client leaves."""
        while not self.hold.is_set() and not self.left.is_set():
            if await request.is_disconnected():
                self.left.set()
            await asyncio.sleep(0.01)

    async def _chunks(self, body: Body) -> AsyncIterator[str]:
        try:
            for number, choice in enumerate(stream_choices(body)):
                yield sse({**head(body, "chat.completion.chunk"), "choices": [choice]})
                if number == 2:
                    await self.hold.wait()
                await asyncio.sleep(self.pause_s)
            if (body.get("stream_options") or {}).get("include_usage"):
                whole = head(body, "chat.completion.chunk")
                yield sse({**whole, "choices": [], "usage": usage(9, len(WORDS))})
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left.set()
            raise


class BrokenOff(Exception):  # noqa: N818 - what breaks a connection
    pass


async def _broken_off() -> AsyncIterator[bytes]:
    yield b'{"choices": ['
    await asyncio.sleep(0.05)
    raise BrokenOff


def sse(event: Body) -> str:
    return f"data: {json.dumps(event)}\n\n"


def usage(prompt: int, completion: int) -> Body:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def head(body: Body, kind: str) -> Body:
    return {"id": "chatcmpl-up", "object": kind, "created": 1, "model": body["model"]}


def text_of(body: Body) -> str:
    """What is said, by what is asked for."""
    if body.get("response_format"):
        return '{"sea": "salty", "depth": 3.0}'
    image = [
        part["image_url"]["url"]
        for message in body["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]
    return f"I see {image[0][-12:]}" if image else "".join(WORDS)


def completion(body: Body) -> Body:
    message: Body = {"role": "assistant", "content": text_of(body), "reasoning_content": "Hm."}
    finish = "stop"
    if body.get("tools"):
        message |= {"content": None, "tool_calls": [call()]}
        finish = "tool_calls"
    logprobs = None
    if body.get("logprobs"):
        first = {"token": "The", "logprob": -0.25, "bytes": [84, 104, 101]}
        logprobs = {"content": [{**first, "top_logprobs": [first] * body["top_logprobs"]}]}
    choices = [
        {"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs}
        for index in range(body.get("n") or 1)
    ]
    return {**head(body, "chat.completion"), "choices": choices, "usage": usage(9, 6)}


def call() -> Body:
    function = {"name": "depth", "arguments": '{"sea": "Atlantic"}'}
    return {"id": "call-1", "type": "function", "function": function}


def stream_choices(body: Body) -> list[Body]:
    deltas: list[Body] = [{"role": "assistant", "content": ""}, {"reasoning_content": "Hm."}]
    if body.get("tools"):
        deltas += [{"tool_calls": [{"index": 0, **call()}]}]
    else:
        deltas += [{"content": word} for word in WORDS]
    choices = [
        {"index": index, "delta": delta, "finish_reason": None}
        for delta in deltas
        for index in range(body.get("n") or 1)
    ]
    return [*choices, {"index": 0, "delta": {}, "finish_reason": "stop"}]


def response_object(body: Body) -> Body:
    part = {"type": "output_text", "text": "".join(WORDS), "annotations": []}
    return {
        "id": "resp_up",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": body["model"],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": body.get("tools") or [],
        "output": [
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [part],
            }
        ],
    }

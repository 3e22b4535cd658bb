"""Servers that speak the wire formats of others, with an engine of ours behind them.

Written from the sources that the dialects name, and only as far as the dialects use them: what a
real server answers is for `make engines` to show.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from plato.engine import (
    Chunk,
    Engine,
    EngineBusyError,
    GenerateRequest,
    Grammar,
    Prompt,
    RequestRefusedError,
    SamplingParams,
    Segment,
    StopConditions,
)
from plato.engine.grammar import json_grammar
from plato.engine.tokenizer_config import TokenizerConfig
from tests.engine.upstream.http import HttpServer
from tests.gbnf import to_lark

MODEL = "tiny"
NOT_READY = 503
Body = dict[str, Any]


class WireServer(ABC):
    """One model behind one wire format."""

    model_name: ClassVar[str] = MODEL
    owner: ClassVar[str]
    path: ClassVar[str]

    def __init__(self, engine: Engine, tokenizer: TokenizerConfig, context_length: int) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.bodies: list[Body] = []
        """What sequences were asked for with."""
        self.refusal: tuple[int, str] | None = None
        """Status and `Retry-After` for all that it is asked."""
        self.broken = False
        """Whether it breaks off within the first event of each stream."""
        self._requests = 0
        self.http = HttpServer(
            Starlette(
                routes=[
                    Route("/health", self._health),
                    Route("/v1/models", self._models),
                    Route("/tokenize", self._tokenize, methods=["POST"]),
                    Route(self.path, self._generate, methods=["POST"]),
                    *self.more_routes(),
                ]
            )
        )

    async def stop(self) -> None:
        await self.http.stop()

    def more_routes(self) -> list[Route]:
        return []

    def model(self) -> Body:
        """The entry in `GET /v1/models`."""
        return {"id": MODEL, "owned_by": self.owner, "max_model_len": self.context_length}

    def text(self, body: Body) -> str:
        """What `POST /tokenize` is asked to tokenise."""
        text: str = body["prompt"]
        assert body["add_special_tokens"] is False
        return text

    @abstractmethod
    def read(self, body: Body) -> GenerateRequest:
        """What a sequence is asked for with, as our engine is asked."""

    @abstractmethod
    def events(self, body: Body, chunks: AsyncIterator[Chunk]) -> AsyncIterator[Body | str]:
        """What the server streams."""

    def answer(self, body: Body, chunks: list[Chunk]) -> Body:
        """What the server answers to a call that is no stream."""
        raise NotImplementedError

    def new_request(
        self, tokens: list[int], budget: int, sampling: SamplingParams, **fields: Any
    ) -> GenerateRequest:
        self._requests += 1
        prompt = Prompt((Segment(tuple(tokens)),), fields.pop("salt", None) or "")
        ends = StopConditions(end_tokens=not fields.pop("ignore_eos"))
        # Random numbers are keyed by the node: on a server, a request has none.
        run_id = f"wire-{self._requests}"
        return GenerateRequest(run_id, 1, prompt, budget, sampling=sampling, stop=ends, **fields)

    async def _health(self, request: Request) -> Response:
        loading = self.refusal is not None and self.refusal[0] == NOT_READY
        return Response(status_code=NOT_READY if loading else 200)

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self.model()]})

    async def _tokenize(self, request: Request) -> Response:
        text = self.text(await request.json())
        ids = self.tokenizer.backend.encode(text, add_special_tokens=False).ids
        return JSONResponse({"tokens": ids})

    async def _generate(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        if self.refusal is not None:
            status, retry_after = self.refusal
            return Response("at 10.0.0.1", status, {"Retry-After": retry_after})
        chunks = self.engine.generate(self.read(body))
        try:
            await anext(chunks)  # The acknowledgement.
            first = await anext(chunks)
        except RequestRefusedError as error:
            return JSONResponse({"error": {"message": str(error), "code": 400}}, 400)
        except EngineBusyError as error:
            return JSONResponse({"error": {"message": str(error), "code": 503}}, 503)
        rest = _with_first(first, chunks)
        if not body.get("stream"):
            return JSONResponse(self.answer(body, [chunk async for chunk in rest]))
        return StreamingResponse(self._stream(body, rest), media_type="text/event-stream")

    async def _stream(self, body: Body, chunks: AsyncGenerator[Chunk]) -> AsyncIterator[str]:
        async with aclosing(chunks):
            if self.broken:
                yield 'data: {"choices": ['
                return
            async for event in self.events(body, chunks):
                yield f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n"


async def _with_first(first: Chunk, rest: AsyncGenerator[Chunk]) -> AsyncGenerator[Chunk]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk


def as_grammar(gbnf: str | None = None, schema: str | None = None) -> Grammar | None:
    """What a server was sent, as our engine is asked."""
    if schema is not None:
        return Grammar(json_grammar(json.loads(schema)))
    return None if gbnf is None else Grammar(to_lark(gbnf))


def as_bias(pairs: dict[str, float] | None) -> tuple[tuple[int, float], ...]:
    return tuple((int(token), value) for token, value in (pairs or {}).items())

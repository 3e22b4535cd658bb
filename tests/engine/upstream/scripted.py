"""A server that speaks vLLM's wire format and does what a test says: for faults."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from plato.engine import Chunk, FinishReason, GenerateRequest, Prompt, Segment
from plato.engine.openai import UpstreamConfig, UpstreamEngine
from plato.engine.openai.config import NOTATIONS
from plato.engine.openai.probe import PROBE, QUESTION
from plato.engine.tokenizer_config import TokenizerConfig
from tests.engine.upstream.http import HttpServer

END = 256
"""Token id of the end of a turn; those below are bytes."""
PROMPT = tuple(b"Once upon a time")

Reply = Callable[[dict[str, Any]], Response]


def byte_tokenizer() -> TokenizerConfig:
    """One token for each byte, whose id is the byte."""
    symbols = _symbols_of_bytes()
    vocabulary = {symbol: byte for byte, symbol in enumerate(symbols)}
    backend = Tokenizer(models.BPE(vocab={**vocabulary, "</s>": END}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["</s>"])
    return TokenizerConfig(backend, {"eos_token": "</s>"})


def _symbols_of_bytes() -> list[str]:
    """How ByteLevel writes each byte: printable ones as themselves, others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def event(tokens: list[int], finish: str | None = None, **fields: Any) -> str:
    """An event of vLLM's stream."""
    choice = {"index": 0, "text": "", "token_ids": tokens, "finish_reason": finish, **fields}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


def usage(cached: int) -> str:
    about = {"prompt_tokens_details": {"cached_tokens": cached}}
    return f"data: {json.dumps({'choices': [], 'usage': about})}\n\n"


DONE = "data: [DONE]\n\n"


def stream(*pieces: str | bytes | float | type[Exception], status: int = 200) -> Response:
    """Pieces of a stream; numbers are pauses, and an exception breaks the connection."""

    async def body() -> AsyncIterator[str | bytes]:
        for piece in pieces:
            if isinstance(piece, (int, float)):
                await asyncio.sleep(piece)
            elif isinstance(piece, type):
                raise piece
            else:
                yield piece
                await asyncio.sleep(0)

    return StreamingResponse(body(), status, media_type="text/event-stream")


def says(text: str, finish: str = "stop") -> Response:
    """A whole answer, one token an event."""
    *tokens, last = text.encode()
    return stream(*(event([token]) for token in tokens), event([last], finish), usage(3), DONE)


def probed(body: dict[str, Any]) -> str | None:
    """The notation that a request is to try; `None` for other requests."""
    sent = {*body.get("structured_outputs", {}).values()}
    return next((name for name in NOTATIONS if getattr(PROBE, name) in sent), None)


@dataclass
class ScriptedServer:
    """Answers sequences with `reply`."""

    reply: Reply = field(default=lambda _: says("hello"))
    models: Any = field(
        default_factory=lambda: {
            "data": [{"id": "model", "owned_by": "vllm", "max_model_len": 100}]
        }
    )
    shift: int = 0
    """Added to the ids of tokens, as another tokenizer would."""
    reads: frozenset[str] = frozenset({"json_schema", "gbnf"})
    """Notations of grammars; others are refused."""
    probe_reply: Callable[[], Response] = field(default=lambda: says('{"sky":"blue"}'))
    scores: bool = True
    """Whether it knows `logprob_token_ids`; otherwise it ignores them."""
    salts: bool = True
    """Whether it knows `cache_salt`; otherwise it ignores it."""
    metrics: str | None = None
    """What it measures; `None`: nobody is told."""
    metrics_status: int = 200
    healthy: bool = True
    late: list[float] = field(default_factory=list)
    """By how much its next answers about its health are late; the last one goes for all others."""
    key: str | None = None
    """Without it nobody is told of the models."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """What sequences were asked for with."""
    keys: set[str | None] = field(default_factory=set)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.http = HttpServer(
            Starlette(
                routes=[
                    Route("/health", self._health),
                    Route("/metrics", self._metrics),
                    Route("/v1/models", self._models),
                    Route("/tokenize", self._tokenize, methods=["POST"]),
                    Route("/v1/completions", self._complete, methods=["POST"]),
                ]
            )
        )

    async def engine(self, **fields: Any) -> UpstreamEngine:
        """An engine over this server."""
        defaults = {"start_s": 5.0, "answer_s": 5.0, "silence_s": 5.0}
        config = UpstreamConfig(
            **{"url": self.http.url, "tokenizer": byte_tokenizer(), **defaults, **fields}
        )
        return await asyncio.to_thread(UpstreamEngine, config)

    async def _health(self, request: Request) -> Response:
        if self.late:
            await asyncio.sleep(self.late.pop(0) if len(self.late) > 1 else self.late[0])
        return Response(status_code=200 if self.healthy else 503)

    async def _metrics(self, request: Request) -> Response:
        status = 404 if self.metrics is None else self.metrics_status
        return PlainTextResponse(self.metrics or "", status)

    async def _models(self, request: Request) -> Response:
        given = request.headers.get("authorization")
        self.keys.add(given)
        if self.key is not None and given != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "who?", "code": 401}}, 401)
        return JSONResponse(self.models)

    async def _tokenize(self, request: Request) -> Response:
        body = await request.json()
        ids = byte_tokenizer().backend.encode(body["prompt"], add_special_tokens=False).ids
        return JSONResponse({"tokens": [token + self.shift for token in ids]})

    async def _complete(self, request: Request) -> Response:
        self.keys.add(request.headers.get("authorization"))
        body = await request.json()
        if (notation := probed(body)) is not None:
            known = notation in self.reads
            return self.probe_reply() if known else Response("no such grammar", 400)
        if bytes(body["prompt"]).startswith(QUESTION.encode()):
            return self._probed(body)
        self.bodies.append(body)
        self.arrived.set()
        return self.reply(body)

    def _probed(self, body: dict[str, Any]) -> Response:
        """The answer to a probe of scores or salts."""
        named = body.get("logprob_token_ids", []) if self.scores else []
        first = {f"token_id:{token}": -0.5 for token in named}
        cached = 0 if self.salts and "cache_salt" in body else 16
        end = event([97], "length", logprobs={"top_logprobs": [first]})
        return stream(end, usage(cached), DONE)


def request(tenant: str = "", **fields: Any) -> GenerateRequest:
    """A request for at most 20 tokens."""
    defaults = {"run_id": "run", "node": 1, "max_tokens": 20}
    prompt = Prompt((Segment(PROMPT),), tenant)
    return GenerateRequest(**{**defaults, "prompt": prompt, **fields})


@dataclass
class Answer:
    """What a sequence gave."""

    chunks: list[Chunk]

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for chunk in self.chunks for token in chunk.tokens)

    @property
    def last(self) -> Chunk:
        return self.chunks[-1]

    @property
    def finish(self) -> FinishReason | None:
        return self.last.finish


async def ask(engine: UpstreamEngine, asked: GenerateRequest | None = None) -> Answer:
    async with asyncio.timeout(20):
        return Answer([chunk async for chunk in engine.generate(asked or request())])

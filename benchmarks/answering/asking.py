"""Asks questions in several modes, in this process or over HTTP, and times the answers."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from benchmarks.answering.questions import Question
from benchmarks.common.workload import fresh_tenant
from plato.api.answers.run_info import PlatoInfo, Usage
from plato.api.questions.requests import parse_request, to_run_request
from plato.api.runs.events import read_event
from plato.runs import Mode, RunError, RunEvent, RunRequest, RunState
from plato.runtime import Runtime
from plato.settings import Settings

TIMEOUT_S = 900.0
BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)


class RefusedError(RuntimeError):
    """There is too much to do for this question."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way of answering."""

    name: str
    mode: Mode
    decode_plan: bool = False
    """Whether the plan of a question with parts is decoded, or given."""
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """More fields of the request for questions without parts; `plato` among them."""

    def options(self, question: Question) -> dict[str, Any]:
        """Fields of the chat completion request."""
        plato: dict[str, Any] = {"mode": self.mode.value}
        if not question.parts:
            return {**self.fields, "plato": plato | self.fields.get("plato", {})}
        plato["exact_lengths"] = True
        if self.mode is Mode.SEQUENTIAL:
            return {"plato": plato, "max_tokens": question.tokens}
        plato["plan"] = [
            {
                "title": part.title,
                "dependencies": list(part.dependencies),
                "max_tokens": part.max_tokens,
            }
            for part in question.parts
        ]
        plato["decode_plan"] = self.decode_plan
        if self.mode is Mode.AUTO:
            # Of a sequential answer, if that is what it chooses.
            return {"plato": plato, "max_tokens": question.tokens}
        return {"plato": plato}


SEQUENTIAL = Way("sequential", Mode.SEQUENTIAL)
SKELETON = Way("skeleton", Mode.SKELETON, decode_plan=True)
PLATO = Way("plato", Mode.PLATO, decode_plan=True)
GIVEN = Way("plato, plan given", Mode.PLATO)
AUTO = Way("auto", Mode.AUTO, decode_plan=True)


@dataclass
class Answered:
    """One answer; times in seconds as the client saw them."""

    question: Question
    way: str
    latency_s: float = 0.0
    first_text_s: float = 0.0
    text: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    """The response's `plato` object, where there is one."""
    usage: dict[str, Any] = field(default_factory=dict)
    """OpenAI's `usage`, where the server sends it."""
    finish: str | None = None
    """OpenAI's `finish_reason`."""
    began: float = 0.0
    """`time.perf_counter()` at the question."""
    request: RunRequest | None = None
    events: list[RunEvent] = field(default_factory=list)
    """Of runs in this process; over HTTP where the request asks for `plato.events`."""

    @property
    def visible_tokens(self) -> int:
        """Tokens of `text`, without those of a plan, of reasoning, or cut from the answer."""
        details = self.usage.get("completion_tokens_details") or {}
        hidden = details.get("reasoning_tokens") or 0
        return int(self.usage.get("completion_tokens", 0)) - int(hidden)

    @property
    def tokens(self) -> int:
        """Answer tokens that were decoded."""
        if self.info:
            return sum(int(node["tokens"]) for node in self.info["graph"]["nodes"])
        return int(self.usage.get("completion_tokens", 0))

    @property
    def parallelism(self) -> float:
        """Decoding time of all parts over the answer's time."""
        nodes = self.info["graph"]["nodes"]
        busy = sum((n["finished_s"] or 0) - (n["first_token_s"] or 0) for n in nodes)
        return float(busy / self.latency_s)

    @property
    def before_parts_s(self) -> float:
        """Until the first part started: what planning adds that nothing overlaps."""
        started = [node["started_s"] for node in self.info["graph"]["nodes"]]
        return float(min((s for s in started if s is not None), default=0.0))

    @property
    def plan_prompt_tokens(self) -> tuple[int, int]:
        """Prompt tokens of the plan, and those of them that were cached."""
        plan = self.info["plan"]
        return int(plan["prompt_tokens"]), int(plan["cached_tokens"])

    @property
    def computed_prompt_tokens(self) -> int:
        """Prompt tokens that had to be computed, the plan's included."""
        nodes = self.info["graph"]["nodes"]
        total, cached = self.plan_prompt_tokens
        return total - cached + sum(int(n["prompt_tokens"] - n["cached_tokens"]) for n in nodes)


class Asker(Protocol):
    """Something that answers questions."""

    async def ask(self, question: Question, way: Way) -> Answered:
        """Ask, and wait for the whole answer. No cache of earlier questions serves it.

        Raises `RefusedError`.
        """
        ...


class RuntimeAsker:
    """A runtime in this process."""

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        self._runtime = runtime
        self._settings = settings

    async def ask(self, question: Question, way: Way) -> Answered:
        """See `Asker.ask`."""
        body = _body(question, way, self._settings.model_name)
        request = to_run_request(
            parse_request(json.dumps(body)),
            settings=self._settings,
            context_length=self._runtime.tools.context_length,
            sampling=self._runtime.tools.sampling,
            tenant=fresh_tenant(),
        )
        answered = Answered(question, way.name, request=request)
        state = RunState(request)
        answered.began = began = time.perf_counter()
        async with aclosing(self._runtime.run(request)) as batches:
            async for events in batches:
                for event in events:
                    if state.feed(event) and not answered.first_text_s:
                        answered.first_text_s = time.perf_counter() - began
                answered.events += events
        answered.latency_s = time.perf_counter() - began
        try:
            answer = state.answer()
        except RunError as error:
            if error.status in BUSY:
                raise RefusedError(error.message) from error
            raise
        answered.text = answer.text
        answered.info = PlatoInfo.of(answer.report).model_dump(mode="json")
        answered.usage = Usage.of(answer.report).model_dump()
        answered.finish = answer.finish_reason
        return answered


class HttpAsker:
    """An OpenAI-compatible server; `plato` says whether it knows our extension."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        plato: bool = True,
        api_key: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """Without `api_key` every question comes from a tenant of its own."""
        self._url = url.rstrip("/").removesuffix("/v1") + "/v1"
        self._model = model
        self._plato = plato
        self._api_key = api_key
        self._extra = extra or {}
        # As many connections as there are questions at a time.
        limits = httpx.Limits(max_connections=None)
        self._http = httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits, trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ask(self, question: Question, way: Way) -> Answered:
        """See `Asker.ask`. Raises `RuntimeError` if the server does not answer."""
        body = _body(question, way, self._model)
        body |= {"stream": True, "stream_options": {"include_usage": True}, **self._extra}
        if not self._plato:
            del body["plato"]
        answered = Answered(question, way.name)
        headers = {"Authorization": f"Bearer {self._api_key or fresh_tenant()}"}
        answered.began = began = time.perf_counter()
        async with self._http.stream(
            "POST", f"{self._url}/chat/completions", json=body, headers=headers
        ) as response:
            if response.status_code != httpx.codes.OK:
                refused = response.status_code in BUSY
                kind = RefusedError if refused else RuntimeError
                raise kind(f"{self._url}: {(await response.aread()).decode()}")
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    self._take(answered, json.loads(line.removeprefix("data: ")))
        answered.latency_s = time.perf_counter() - began
        return answered

    @staticmethod
    def _take(answered: Answered, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            raise RuntimeError(str(chunk["error"]))
        answered.usage = chunk.get("usage") or answered.usage
        for choice in chunk.get("choices", ()):
            text = choice["delta"].get("content") or ""
            if text and not answered.first_text_s:
                answered.first_text_s = time.perf_counter() - answered.began
            answered.text += text
            answered.finish = choice.get("finish_reason") or answered.finish
        plato = chunk.get("plato") or {}
        if "event" in plato:
            event = read_event(plato["event"])
            answered.events += [event] if event is not None else []
        else:
            answered.info = plato or answered.info


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The first model of a server."""

    name: str
    plato: bool
    """Whether Plato serves it, and knows our extension."""

    @classmethod
    async def find(cls, url: str, api_key: str | None = None) -> ServedModel:
        """Ask a server. Raises `RuntimeError` if it does not list its models."""
        models = f"{url.rstrip('/').removesuffix('/v1')}/v1/models"
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            async with httpx.AsyncClient(trust_env=False, headers=headers) as http:
                response = (await http.get(models)).raise_for_status()
            first = response.json()["data"][0]
            return cls(str(first["id"]), first.get("owned_by") == "plato")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, LookupError, TypeError) as error:
            raise RuntimeError(
                f"{models} lists no model ({type(error).__name__}: {error}); check the URL"
            ) from error


@asynccontextmanager
async def http_asker(url: str, model: str, **options: Any) -> AsyncGenerator[HttpAsker]:
    """An `HttpAsker` whose connections are closed in the end."""
    asker = HttpAsker(url, model, **options)
    try:
        yield asker
    finally:
        await asker.close()


def _body(question: Question, way: Way, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": question.text}],
        **way.options(question),
    }

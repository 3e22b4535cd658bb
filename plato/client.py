"""Clients of a server over HTTP and of a runtime in this process, with one interface."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from plato.api.answers.run_info import PlatoInfo
from plato.api.questions.requests import to_run_request, validate_request
from plato.api.runs.events import read_event
from plato.errors import PlatoError, UnavailableError, UnreachableError
from plato.runs import RunEvent, RunFailed, RunFinished, RunState

if TYPE_CHECKING:
    # It imports torch, which takes seconds and is not needed with a server.
    from plato.runtime import Runtime

CONNECT_TIMEOUT_S = 5.0
DONE = "data: [DONE]"
_LOOPBACK = re.compile(r"https?://(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?(/|$)")


@dataclass(frozen=True, slots=True)
class Update:
    """An increment of an answer."""

    text: str = ""
    """Text that continues the answer."""
    event: RunEvent | None = None
    """An event of the run other than its end, which `info` or an error reports."""
    info: PlatoInfo | None = None
    """The `plato` object of the finished answer; only in the last update."""
    finish_reason: str | None = None


class Client(Protocol):
    """Answers questions."""

    def ask(self, question: str, options: dict[str, Any]) -> AsyncGenerator[Update]:
        """Answer `question`; closing the generator cancels.

        `options` are fields of a chat completion request, `plato` among them. Raises a
        `PlatoError`.
        """
        ...


class HttpClient:
    """A server's chat completions."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float = 600.0) -> None:
        """`url` is the server's root or its `/v1`."""
        self._base = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # A proxy from the environment cannot reach a server on this machine.
        self._trust_env = _LOOPBACK.match(self._base) is None
        self._timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        self._model: str | None = None

    async def ask(self, question: str, options: dict[str, Any]) -> AsyncGenerator[Update]:
        """See `Client.ask`."""
        async with self._connection(self._timeout) as http:
            try:
                if self._model is None:
                    self._model = await self._find_model(http)
                body = _body(question, options, self._model)
                url = f"{self._base}/v1/chat/completions"
                async with http.stream("POST", url, json=body) as response:
                    if response.status_code != httpx.codes.OK:
                        raise _refused(await response.aread(), response.status_code)
                    async for line in response.aiter_lines():
                        if line == DONE:
                            return
                        update = _read_line(line)
                        if update is not None:
                            yield update
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise UnreachableError(
                    f"no response from {self._base}: {str(error) or type(error).__name__}; "
                    "start a server with 'plato serve', or name another with --url"
                ) from error
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise UnavailableError(
                    f"unexpected response from {self._base}, which may not be a Plato server "
                    f"({type(error).__name__}: {error}); name another with --url"
                ) from error
        raise UnavailableError(f"the answer from {self._base} is incomplete; ask again")

    async def answers(self) -> bool:
        """Whether a server responds."""
        try:
            async with self._connection(httpx.Timeout(CONNECT_TIMEOUT_S)) as http:
                response = await http.get(f"{self._base}/healthz")
        except (httpx.HTTPError, httpx.InvalidURL):
            return False
        return response.status_code == httpx.codes.OK

    def _connection(self, timeout: httpx.Timeout) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=timeout, headers=self._headers, trust_env=self._trust_env)

    async def _find_model(self, http: httpx.AsyncClient) -> str:
        response = await http.get(f"{self._base}/v1/models")
        if response.status_code != httpx.codes.OK:
            raise _refused(response.content, response.status_code)
        name: str = response.json()["data"][0]["id"]
        return name


class LocalClient:
    """A runtime in this process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def ask(self, question: str, options: dict[str, Any]) -> AsyncGenerator[Update]:
        """See `Client.ask`."""
        # Validate as the server does, so that invalid options give the same errors.
        settings, tools = self._runtime.settings, self._runtime.tools
        body = validate_request(_body(question, options, settings.model_name))
        request = to_run_request(
            body, settings=settings, context_length=tools.context_length, sampling=tools.sampling
        )
        state = RunState(request)
        async with aclosing(self._runtime.service.answer(state)) as batches:
            async for event in (event async for events in batches for event in events):
                shown = body.options.events and not isinstance(event, RunFinished | RunFailed)
                yield Update(event.text, event if shown else None)
        answer = state.answer()
        yield Update(info=PlatoInfo.of(answer.report), finish_reason=answer.finish_reason)


def _body(question: str, options: dict[str, Any], model: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        **options,
        "plato": {"events": True, **options.get("plato", {})},
    }


def _read_line(line: str) -> Update | None:
    """The update in one line of a stream of chunks; None if it has none."""
    if not line.startswith("data: "):
        return None
    chunk = json.loads(line.removeprefix("data: "))
    if "error" in chunk:
        raise _error(chunk["error"])
    if not chunk["choices"]:
        return None
    choice = chunk["choices"][0]
    plato = chunk.get("plato") or {}
    event = plato.get("event")
    return Update(
        text=choice["delta"].get("content") or "",
        event=read_event(event) if event is not None else None,
        info=PlatoInfo.model_validate(plato) if plato and event is None else None,
        finish_reason=choice.get("finish_reason"),
    )


def _refused(body: bytes, status: int) -> PlatoError:
    try:
        return _error(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        return UnavailableError(f"the server answered with status {status}")


def _error(fields: dict[str, Any]) -> PlatoError:
    return PlatoError(fields["message"], param=fields.get("param"), code=fields.get("code"))

"""A judge behind any OpenAI-compatible URL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.common.rows import InputError
from benchmarks.quality.pairs import Pair, Verdict, find_verdict

INSTRUCTIONS = """\
You compare two answers to the same question. Ask of each: Is it right? Does it answer what was \
asked, fully, and at a length that suits the question? Does it read as one text, without \
repeating or contradicting itself, going off the subject or breaking off? Length alone is no \
merit, nor are headings or lists. The order of the answers means nothing.

First name the main strengths and faults of each answer in a few sentences. Then end with exactly \
one of these verdicts:
[[1>>2]] answer 1 is much better
[[1>2]] answer 1 is better
[[1=2]] they are about equally good
[[2>1]] answer 2 is better
[[2>>1]] answer 2 is much better"""
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses after which asking again may help."""
LONGEST_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Judge:
    """Asks one model for verdicts."""

    http: httpx.AsyncClient
    url: str
    """The server's root or its `/v1`."""
    model: str
    api_key: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields to add to every request."""
    deadline_s: float = 300.0
    """For one verdict, retries included."""
    first_wait_s: float = 1.0
    """Before the first retry; it doubles with every further one."""

    async def judge(self, pair: Pair) -> Verdict:
        """The verdict on one pair, without one if the judge gave none before the deadline.

        Raises `InputError` if the server refuses what is asked of it, or `url` is invalid.
        """
        deadline = time.monotonic() + self.deadline_s
        wait_s = self.first_wait_s
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    reply = await self._ask(pair)
                return Verdict(pair.pair, find_verdict(reply), reply)
            except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
                raise InputError(f"{self.url} is not the URL of a judge: {error}") from error
            except (httpx.TransportError, _PassingError, TimeoutError) as error:
                if time.monotonic() + wait_s >= deadline:
                    reason = str(error) or type(error).__name__
                    return Verdict(pair.pair, None, f"no reply within the deadline: {reason}")
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _ask(self, pair: Pair) -> str:
        base = self.url.rstrip("/").removesuffix("/v1")
        body = {"model": self.model, "messages": messages(pair), "temperature": 0, **self.extra}
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        response = await self.http.post(f"{base}/v1/chat/completions", json=body, headers=headers)
        if response.status_code in PASSING:
            raise _PassingError(f"status {response.status_code}")
        if response.status_code != httpx.codes.OK:
            raise InputError(
                f"the judge at {base} refuses with status {response.status_code}: "
                f"{response.text[:500]}"
            )
        try:
            return str(response.json()["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{base} does not answer as OpenAI's API does: {error}") from error


class _PassingError(Exception):
    """The server cannot answer now."""


def messages(pair: Pair) -> list[dict[str, str]]:
    """The judge's prompt."""
    text = (
        f"<question>\n{pair.question}\n</question>\n\n"
        f"<answer_1>\n{pair.answer_1}\n</answer_1>\n\n"
        f"<answer_2>\n{pair.answer_2}\n</answer_2>"
    )
    return [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": text}]


async def judge_all(
    judge: Judge, pairs: Sequence[Pair], concurrency: int
) -> AsyncGenerator[Verdict]:
    """Verdicts as they come, `concurrency` at a time."""
    places = asyncio.Semaphore(concurrency)

    async def one(pair: Pair) -> Verdict:
        async with places:
            return await judge.judge(pair)

    tasks = [asyncio.create_task(one(pair)) for pair in pairs]
    try:
        for next_done in asyncio.as_completed(tasks):
            yield await next_done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

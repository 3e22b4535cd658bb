"""What do one client's requests do to those of others?

    python -m benchmarks.hostile [--quick] [--json FILE] [--repeats N]

On `plato serve --embedded`, medians over the repeats:

- a conversation of 20,000 messages: how soon it is refused, and the longest gap in a stream beside
  it;
- a prompt of 7,600 words: how much longer a stream of 150 tokens takes beside it, and how much
  later the first text of a short question comes, all without an API key;
- 70 streams of one tenant: the first text of another tenant's questions, beside them and alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from statistics import median

import httpx

from benchmarks.common.report import Report, arguments
from benchmarks.common.serving import serving
from benchmarks.common.streams import Clients
from plato.settings import Settings

DEADLINE_S = 300.0
MESSAGES = 20_000
WORDS = 7_600
STREAMS = 70
STREAM_TOKENS = 150
LOUD_TOKENS = 400
SETTLE_S = 5.0
"""Until the loud tenant's streams are all under way."""
RETRY_S = 1.0
"""After a question that was refused."""
BEGUN_S = 1.0
"""Until the long prompt is being computed."""
QUESTIONS = ("What is a lighthouse?", "Why is the sky blue?", "How do boats float?", "What is tea?")


def main() -> None:
    """Run the benchmark."""
    parser = arguments("hostile", __doc__ or "")
    parser.add_argument("--repeats", type=int, help="repeats of each part")
    options = parser.parse_args()
    repeats = options.repeats or (2 if options.quick else 5)
    settings = Settings(equal_work=True)
    report = Report("hostile", settings.model_name, {"quick": options.quick, "repeats": repeats})
    with serving(settings, embedded=True) as server:
        asyncio.run(measure(server.url, report, repeats))
    report.write(options.json)


async def measure(url: str, report: Report, repeats: int) -> None:
    """All parts, one after the other."""
    limits = httpx.Limits(max_connections=2 * STREAMS)
    async with httpx.AsyncClient(timeout=DEADLINE_S, limits=limits, trust_env=False) as http:
        clients = Clients(url, report.model, http)
        await clients.ask([QUESTIONS[0]], max_tokens=STREAM_TOKENS)
        for part in (many_messages, long_prompt):
            rows = []
            for number in range(repeats):
                rows.append(await part(clients, number))
                sys.stderr.write(f"{part.__name__} {rows[-1]}\n")
            report.rows += [{"part": part.__name__, **row} for row in rows]
            report.metrics |= {name: median(row[name] for row in rows) for name in rows[0]}
        report.metrics |= await loud_tenant(clients, 4 * repeats)


async def many_messages(clients: Clients, number: int) -> dict[str, float]:
    """A conversation of messages beside a stream."""
    stream = asyncio.create_task(clients.ask([f"Question {number}"], max_tokens=STREAM_TOKENS))
    await asyncio.sleep(BEGUN_S)
    refused = await clients.ask(["x"] * MESSAGES)
    if refused.status != httpx.codes.BAD_REQUEST:
        raise RuntimeError(f"{MESSAGES} messages got status {refused.status}")
    return {"refused_s": refused.answered_s, "longest_gap_s": (await stream).longest_gap_s}


async def long_prompt(clients: Clients, number: int) -> dict[str, float]:
    """A stream and a short question, alone and beside a long prompt."""
    alone = await clients.ask([f"Alone {number}"], max_tokens=STREAM_TOKENS)
    short = await clients.ask([f"Short {number}"], max_tokens=2)
    text = f"{number} " + "tree " * WORDS
    long = asyncio.create_task(clients.ask([text], max_tokens=2))
    await asyncio.sleep(BEGUN_S)
    short_beside = await clients.ask([f"Short beside {number}"], max_tokens=2)
    beside = await clients.ask([f"Beside {number}"], max_tokens=STREAM_TOKENS)
    if long.done():
        raise RuntimeError("the long prompt was computed before the stream beside it had ended")
    return {
        "stream_slowdown": beside.streaming_s / alone.streaming_s,
        "short_question_later_s": short_beside.first_text_s - short.first_text_s,
        "long_prompt_s": (await long).answered_s,
    }


async def loud_tenant(clients: Clients, questions: int) -> dict[str, float]:
    """A tenant's questions, alone and beside another's many streams."""

    async def first_texts(when: str) -> float:
        times = []
        for number in range(questions):
            text = f"{QUESTIONS[number % len(QUESTIONS)]} ({when} {number})"
            times.append((await clients.ask([text], "quiet")).first_text_s)
        sys.stderr.write(f"{when}: {[round(seconds, 2) for seconds in times]}\n")
        return median(times)

    alone_s = await first_texts("alone")
    async with loud_streams(clients):
        await asyncio.sleep(SETTLE_S)
        beside_s = await first_texts("beside")
    return {
        "quiet_alone_first_text_s": alone_s,
        "quiet_beside_first_text_s": beside_s,
        "quiet_allowed_s": 2 * alone_s + 0.5,
    }


@asynccontextmanager
async def loud_streams(clients: Clients) -> AsyncGenerator[None]:
    """So many streams of one tenant at any time."""

    async def keep_asking(number: int) -> None:
        asked = 0
        while True:
            asked += 1
            text = f"Tell me a story, number {number} of {asked}"
            answer = await clients.ask([text], "loud", max_tokens=LOUD_TOKENS)
            if answer.status == httpx.codes.TOO_MANY_REQUESTS:
                await asyncio.sleep(RETRY_S)

    tasks = [asyncio.create_task(keep_asking(number)) for number in range(STREAMS)]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    main()

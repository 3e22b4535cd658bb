"""What does Plato cost in front of a server, for answers that pass through?

    python -m benchmarks.proxy [--quick] [--json FILE] [--repeats N]

A server that says a token every 5 ms, in a process of its own, is asked directly and through
`plato serve --embedded`, in turn, by 1, 8 and 64 clients at the same time. All processes share this
machine, so beyond what its cores can do both ways slow down. Figures: how much longer answers take
through Plato (ratio of medians), how much later the first token comes, and the processor time of
Plato's process for each token.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.common.paced_upstream import MODEL, TOKEN_S, paced_upstream
from benchmarks.common.report import Report, arguments
from benchmarks.common.serving import serving
from plato.settings import Settings

WIDTHS = (1, 8, 64)
TOKENS = 200
DEADLINE_S = 120.0
MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True)
class Streamed:
    """One answer. Times in seconds."""

    first_s: float
    total_s: float
    tokens: int


def main() -> None:
    """Run the benchmark."""
    parser = arguments("proxy", __doc__ or "")
    parser.add_argument("--repeats", type=int, help="of each way at each width")
    options = parser.parse_args()
    repeats = options.repeats or (3 if options.quick else 10)
    rows = []
    with paced_upstream() as url:
        settings = Settings(engine="openai", upstreams=(url,), log_level="WARNING")
        with serving(settings, embedded=True) as server:
            process = psutil.Process(server.pid)
            for repeat in range(-1, repeats):
                for width in WIDTHS:
                    for way, base in (("direct", url), ("plato", server.url)):
                        row = asyncio.run(measure(base, width, process))
                        if repeat >= 0:  # The first is to warm up.
                            rows.append({"way": way, "width": width, "repeat": repeat, **row})
                sys.stderr.write(f"{repeat + 1} of {repeats}\n")
    report = Report(
        "proxy",
        MODEL,
        {"quick": options.quick, "repeats": repeats, "token_s": TOKEN_S, "tokens": TOKENS},
        metrics=metrics(rows),
        rows=rows,
    )
    report.write(options.json)


async def measure(base: str, width: int, process: psutil.Process) -> dict[str, Any]:
    """`width` answers at the same time, and what they took of the processor in `process`."""
    before = sum(process.cpu_times()[:2])
    async with asyncio.timeout(DEADLINE_S):
        answers = await asyncio.gather(*(ask(base) for _ in range(width)))
    busy_s = sum(process.cpu_times()[:2]) - before
    tokens = sum(answer.tokens for answer in answers)
    if tokens != width * TOKENS:
        raise RuntimeError(f"{tokens} tokens arrived of {width * TOKENS}")
    return {
        "first_s": median(answer.first_s for answer in answers),
        "total_s": median(answer.total_s for answer in answers),
        "cpu_us_per_token": busy_s / tokens * MICROSECONDS,
    }


async def ask(base: str) -> Streamed:
    """One streamed answer, read as it comes: a client library would cost more than the servers."""
    body = json.dumps(
        {
            "model": "",
            "messages": [{"role": "user", "content": "Go on."}],
            "max_tokens": TOKENS,
            "stream": True,
            "plato": {"mode": "sequential"},
        }
    ).encode()
    address = urlsplit(base)
    loop = asyncio.get_running_loop()
    began = loop.time()
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    first_s, text = 0.0, bytearray()
    while b"data: [DONE]" not in text[-64:]:
        piece = await reader.read(1 << 16)
        if not piece:
            raise RuntimeError(f"the answer ended early: {bytes(text[:500])!r}")
        text += piece
        if not first_s and b"data: " in text:
            first_s = loop.time() - began
    total_s = loop.time() - began
    writer.close()
    return Streamed(first_s, total_s, text.count(b"data: {"))


def metrics(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The figures, by width."""

    def of(way: str, width: int, name: str) -> float:
        return float(
            median(row[name] for row in rows if (row["way"], row["width"]) == (way, width))
        )

    figures: dict[str, float] = {}
    for width in WIDTHS:
        direct, through = (of(way, width, "total_s") for way in ("direct", "plato"))
        figures[f"slowdown_{width}"] = through / direct
        later_s = of("plato", width, "first_s") - of("direct", width, "first_s")
        figures[f"first_token_later_ms_{width}"] = later_s * 1000
        figures[f"cpu_us_per_token_{width}"] = of("plato", width, "cpu_us_per_token")
    return figures


if __name__ == "__main__":
    main()

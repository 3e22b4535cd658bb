"""Does a tenant over its limit cost another one anything?

    python -m benchmarks.limits [--quick] [--json FILE] [--repeats N]

On `plato serve --embedded` with `max_tenant_runs`, in rounds: a loud tenant has as many answers in
progress as it may, and the first text of a quiet tenant's question is timed; then again while the
loud one goes on asking, and is refused. Which comes first alternates. Medians over the rounds; of
every refusal, its status, `Retry-After` and time.
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
from benchmarks.common.streams import Clients, Watched
from plato.settings import Settings

DEADLINE_S = 300.0
ALLOWED = 4
"""Answers of one tenant in progress."""
OVER = 8
"""Clients of the loud tenant that ask above that."""
PACE_S = 0.05
"""Between two questions of such a client: it does not heed `Retry-After`."""
LOUD_TOKENS = 1_500
QUIET_TOKENS = 2
RELEASE_S = 1.0
"""Until answers whose client has left are no longer in progress."""
SETTLE_S = 2.0
"""Until the allowed answers are being decoded."""


def main() -> None:
    """Run the benchmark."""
    parser = arguments("limits", __doc__ or "")
    parser.add_argument("--repeats", type=int, help="rounds")
    options = parser.parse_args()
    repeats = options.repeats or (2 if options.quick else 20)
    settings = Settings(equal_work=True, max_tenant_runs=ALLOWED)
    report = Report("limits", settings.model_name, {"quick": options.quick, "repeats": repeats})
    with serving(settings, embedded=True) as server:
        asyncio.run(measure(server.url, report, repeats))
    report.write(options.json)


async def measure(url: str, report: Report, repeats: int) -> None:
    """All rounds."""
    async with httpx.AsyncClient(timeout=DEADLINE_S, trust_env=False) as http:
        clients, refused = Clients(url, report.model, http), list[Watched]()
        await clients.ask(["What is tea?"], "quiet", max_tokens=QUIET_TOKENS)
        for number in range(repeats):
            async with allowed_answers(clients, number):
                row = {"round": float(number)}
                for over in (False, True) if number % 2 else (True, False):
                    name = "over_first_text_s" if over else "within_first_text_s"
                    row[name] = await first_text(clients, f"{name} {number}", refused, over=over)
            report.rows.append(row)
            sys.stderr.write(f"{row}\n")
    wrong = [one for one in refused if one.status != 429 or one.retry_after is None]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {len(refused)} questions were not refused: {wrong[0]}")
    within, over = (
        median(row[name] for row in report.rows)
        for name in ("within_first_text_s", "over_first_text_s")
    )
    report.metrics = {
        "within_first_text_s": within,
        "over_first_text_s": over,
        "over_by_within": median(
            row["over_first_text_s"] / row["within_first_text_s"] for row in report.rows
        ),
        "refused": len(refused),
        "refusal_s": median(one.answered_s for one in refused),
    }


async def first_text(clients: Clients, text: str, refused: list[Watched], *, over: bool) -> float:
    """Seconds until the first text of the quiet tenant's question, perhaps beside refusals."""
    asking = [asyncio.create_task(keep_asking(clients, refused)) for _ in range(OVER * over)]
    try:
        answer = await clients.ask([f"What is a lighthouse? ({text})"], "quiet", QUIET_TOKENS)
    finally:
        await end(asking)
    return answer.first_text_s


async def keep_asking(clients: Clients, refused: list[Watched]) -> None:
    """Ask as the loud tenant, whose answers in progress are all that it may have."""
    while True:
        refused.append(await clients.ask(["And this one?"], "loud", LOUD_TOKENS))
        await asyncio.sleep(PACE_S)


@asynccontextmanager
async def allowed_answers(clients: Clients, number: int) -> AsyncGenerator[None]:
    """As many answers of the loud tenant as it may have, longer than the block."""
    tasks = [
        asyncio.create_task(clients.ask([f"A story, {number} {part}"], "loud", LOUD_TOKENS))
        for part in range(ALLOWED)
    ]
    try:
        await asyncio.sleep(SETTLE_S)
        yield
        if any(task.done() for task in tasks):
            raise RuntimeError("an answer of the loud tenant ended too early")
    finally:
        await end(tasks)
        await asyncio.sleep(RELEASE_S)


async def end(tasks: list[asyncio.Task[Watched]] | list[asyncio.Task[None]]) -> None:
    """Cancel tasks; raises what one of them has raised before."""
    ended = [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


if __name__ == "__main__":
    main()

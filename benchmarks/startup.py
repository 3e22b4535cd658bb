"""How long does a server take to start, and how much memory do its processes need?

    python -m benchmarks.startup [--quick] [--json FILE] [--repeats N]

`plato serve` and `plato serve --embedded` in turn, with the default model and warm caches: seconds
until it is ready, until the first text of the first answer, and the resident memory (RSS) of every
process after ten answers. Medians over the repeats.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from statistics import median
from typing import Any

import psutil

from benchmarks.answering.asking import AUTO, http_asker
from benchmarks.answering.questions import WARM_UP
from benchmarks.common.report import Report, arguments
from benchmarks.common.serving import Serving, serving
from plato.settings import Settings

ANSWERS = 10
MIB = 1 << 20


def main() -> None:
    """Run the benchmark."""
    parser = arguments("startup", __doc__ or "")
    parser.add_argument("--repeats", type=int, help="starts of each server")
    options = parser.parse_args()
    repeats = options.repeats or (1 if options.quick else 5)
    settings = Settings(sequential_max_tokens=64, node_max_tokens=32)
    rows = []
    for _ in range(repeats):
        for embedded in (False, True):
            with serving(settings, embedded=embedded) as server:
                rows.append(asyncio.run(measure(server, settings, embedded=embedded)))
            sys.stderr.write(f"{rows[-1]}\n")
    report = Report(
        "startup", settings.model_name, {"quick": options.quick, "repeats": repeats}, rows=rows
    )
    report.metrics = metrics(rows)
    report.write(options.json)


async def measure(server: Serving, settings: Settings, *, embedded: bool) -> dict[str, Any]:
    """Times and memory of one start."""
    async with http_asker(server.url, settings.model_name) as asker:
        first = await asker.ask(WARM_UP, AUTO)
        first_text_s = first.began + first.first_text_s - server.started
        for _ in range(ANSWERS - 1):
            await asker.ask(WARM_UP, AUTO)
    return {
        "server": "embedded" if embedded else "ray",
        "ready_s": server.ready_s,
        "first_text_s": first_text_s,
        "rss_mb": resident(server.pid),
        "at": time.time(),
    }


def resident(pid: int) -> dict[str, int]:
    """RSS in MiB of a process and its descendants by name; the largest of those with one name."""
    found: dict[str, int] = defaultdict(int)
    server = psutil.Process(pid)
    for process in (server, *server.children(recursive=True)):
        try:
            name = "plato serve" if process.pid == pid else name_of(process.cmdline())
            found[name] = max(found[name], process.memory_info().rss // MIB)
        except psutil.Error:
            continue
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def name_of(command: list[str]) -> str:
    """A deployment's name, else the last part of the program's or script's."""
    text = " ".join(command)
    if "ServeReplica:plato:" in text:
        return text.partition("ServeReplica:plato:")[2].partition(".")[0].partition(" ")[0]
    words = [word for word in command if word.endswith(".py")] or command[:1] or ["?"]
    return words[0].rpartition("/")[2].partition(" ")[0]


def metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the starts of each server."""
    found: dict[str, Any] = {}
    for server in ("ray", "embedded"):
        mine = [row for row in rows if row["server"] == server]
        for name in ("ready_s", "first_text_s"):
            found[f"{server}_{name}"] = median(row[name] for row in mine)
        for process in mine[0]["rss_mb"]:
            sizes = [row["rss_mb"].get(process, 0) for row in mine]
            found[f"{server}_rss_mb {process}"] = median(sizes)
    return found


if __name__ == "__main__":
    main()

"""An engine without Plato around it: what siblings compute, and what width brings.

    PLATO_ENGINE=... python -m benchmarks.engines.direct FILE

The engine is that of the settings, in this process; FILE gets a JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.engines.environments import ROOT, make_environment
from benchmarks.engines.servers import RealEngine, Size
from plato.assembly import new_engine
from plato.engine import Engine, GenerateRequest, Prompt, Segment, StopConditions
from plato.models import resolve_model
from plato.settings import Settings

BRANCHES = 8
PREFIX, OWN = 512, 24
"""Tokens of what siblings share, and that each has besides."""
WIDTHS = (1, 4, 8)
OUTPUT = 64
"""Tokens that each of some sequences side by side decodes."""
REPEATS = 3
SIZE = Size(context=1024, sequences=BRANCHES)
DEADLINE_S = 600.0


def measure_directly(engine: RealEngine, logs: Path) -> dict[str, Any]:
    """The figures of an engine, started for this. Raises `RuntimeError` if it fails."""
    if engine.in_process:
        python = make_environment(engine.environment) / "python"
        return figures_of(engine.settings(""), python)
    with engine.server(SIZE, logs / f"{engine.name}.log") as server:
        return figures_of(engine.settings(server.url))


def figures_of(settings: dict[str, object], python: str | Path = sys.executable) -> dict[str, Any]:
    """The figures of the engine with these settings, in a process of its own."""
    variables = {
        f"PLATO_{name}".upper(): ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in settings.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        # To a file, because engines write to standard output.
        done = subprocess.run(
            [python, "-m", "benchmarks.engines.direct", file],
            cwd=ROOT,
            env={**os.environ, **variables},
            timeout=DEADLINE_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the engine of {settings} failed; see above")
        figures: dict[str, Any] = json.loads(file.read_text())
    return figures


class Bench:
    """Asks one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._chance = random.Random(0)
        self._nodes = 0

    async def measure(self) -> dict[str, Any]:
        """All figures, medians of some runs."""
        await self.rate(1)  # Warm up.
        computed = [await self.siblings() for _ in range(REPEATS)]
        rates = [{width: await self.rate(width) for width in WIDTHS} for _ in range(REPEATS)]
        return {
            "sibling_prefill_ratio": median(computed) / (PREFIX + BRANCHES * OWN),
            "tokens_per_s": {width: median(run[width] for run in rates) for width in WIDTHS},
            "width_gain": median(run[WIDTHS[-1]] / run[1] for run in rates),
        }

    async def siblings(self) -> int:
        """Prompt tokens that branches of a new prefix compute which arrive together."""
        shared = self._some(PREFIX)
        before = self._engine.stats()
        prompts = [Prompt((shared, self._some(OWN))) for _ in range(BRANCHES)]
        await asyncio.gather(*(self._decode(prompt, 1) for prompt in prompts))
        after = self._engine.stats()
        cached = after.cached_tokens - before.cached_tokens
        return after.prompt_tokens - before.prompt_tokens - cached

    async def rate(self, width: int) -> float:
        """Tokens a second of sequences side by side, with short prompts of their own."""
        prompts = [Prompt((self._some(OWN),)) for _ in range(width)]
        began = time.perf_counter()
        await asyncio.gather(*(self._decode(prompt, OUTPUT) for prompt in prompts))
        return width * OUTPUT / (time.perf_counter() - began)

    def _some(self, count: int) -> Segment:
        return Segment(tuple(self._chance.choices(range(100, 20_000), k=count)))

    async def _decode(self, prompt: Prompt, tokens: int) -> None:
        self._nodes += 1
        request = GenerateRequest(
            "direct", self._nodes, prompt, tokens, stop=StopConditions(end_tokens=False)
        )
        async for _ in self._engine.generate(request):
            pass


async def _measure(engine: Engine) -> dict[str, Any]:
    try:
        return await Bench(engine).measure()
    finally:
        await engine.close()


def main() -> None:
    """Write the figures of the configured engine."""
    settings = Settings()
    engine = new_engine(settings, str(resolve_model(settings.model)), "direct")
    Path(sys.argv[1]).write_text(json.dumps(asyncio.run(_measure(engine))))


if __name__ == "__main__":
    main()

"""Step times by width and the prefill rate of this machine, from which the bound is computed.

Measured in a separate process. In float32, OpenMP keeps a team of threads for every thread that has
computed anything, and if there are more of them than cores, they sleep between operations instead
of spinning: a second engine in the process, even an idle one, doubles the step times of the first.
In int8 two engines share one team.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from benchmarks.common.workload import fresh_tenant
from benchmarks.engine.harness import Output, Workbench, request, run_step, timed, timed_step
from plato.testing.paced import Pace

WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16)
SHARED, OWN, STEPS = 256, 32, 40
"""Tokens of the prefix that sequences share, as the parts of an answer do, of what each has for
itself, and to decode."""
PREFILL = 768
DEADLINE_S = 600.0


def fastest(paces: Sequence[Pace]) -> Pace:
    """What was measured best of every figure: a bound is made of what the machine can do."""
    columns = zip(*(pace.step_ms for pace in paces), strict=True)
    return replace(
        paces[0],
        step_ms=tuple(min(points, key=lambda point: point[1]) for points in columns),
        prefill_tokens_per_s=max(pace.prefill_tokens_per_s for pace in paces),
    )


def calibrate(folder: Path) -> Pace:
    """Measure the model in `folder`."""
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.answering.calibration", str(folder)],
        check=True,
        stdout=subprocess.PIPE,
        timeout=DEADLINE_S,
    )
    fields = json.loads(found.stdout)
    fields["step_ms"] = tuple((width, ms) for width, ms in fields["step_ms"])
    return Pace(**fields)


def measure_pace(bench: Workbench) -> Pace:
    """Median step times by width and the prefill rate, of a core driven without a thread."""
    core = bench.core("auto", max_sequences=max(WIDTHS))
    documents = bench.documents(max(WIDTHS) + 1, SHARED)
    points: list[tuple[int, float]] = []
    for width in WIDTHS:
        tenant = fresh_tenant()
        outputs = [Output() for _ in range(width)]
        for document, output in zip(documents[1:], outputs, strict=False):
            prompt = request(documents[0], document[:OWN], max_tokens=STEPS, tenant=tenant)
            core.add(prompt, output)
        steps = []
        while core.has_work:
            steps.append(timed_step(core, outputs))
        points.append((width, 1e3 * median(step.seconds for step in steps if step.full)))
        sys.stderr.write(f"step of {width}: {points[-1][1]:.1f} ms\n")
    (document,) = bench.documents(1, PREFILL)

    def prefill() -> None:
        core.add(request(document, max_tokens=1, tenant=fresh_tenant()), Output())
        while core.has_work:
            run_step(core)

    rate = PREFILL / median(timed(prefill) for _ in range(3))
    sys.stderr.write(f"prefill: {rate:.0f} tokens/s\n")
    return replace(Pace(), step_ms=tuple(points), prefill_tokens_per_s=rate)


if __name__ == "__main__":
    print(json.dumps(asdict(measure_pace(Workbench(Path(sys.argv[1]), quick=True)))))

"""The paced engine takes the time of the model whose pace it has."""

from __future__ import annotations

import time

from plato.settings import Settings
from plato.testing.paced import Pace, paced_engine, step_seconds
from tests.engine.helpers import ask, collect, some_tokens


def test_steps_take_what_was_measured_and_interpolate_between() -> None:
    pace = Pace(step_ms=((1, 10.0), (4, 16.0), (8, 30.0)), prefill_tokens_per_s=1000.0)
    assert [round(step_seconds(pace, width, 0) * 1e3, 6) for width in (0, 1, 2, 4, 6, 8, 10)] == [
        0.0,
        10.0,
        12.0,
        16.0,
        23.0,
        30.0,
        37.0,
    ]
    assert round(step_seconds(pace, 1, 50) * 1e3, 6) == 60.0


async def test_an_engine_decodes_at_the_pace_of_its_options(tiny_model_folder: str) -> None:
    # Lists, as JSON has no tuples.
    pace = {"step_ms": [[1, 30.0], [2, 40.0]], "prefill_tokens_per_s": 1e6, "context_length": 100}
    settings = Settings(kv_budget_mb=4, decoder_threads=1, engine_options={"pace": pace})
    engine = paced_engine(settings, tiny_model_folder, "paced")
    began = time.perf_counter()
    stream = await collect(engine, ask(some_tokens(20), max_tokens=6))
    assert len(stream.tokens) == 6
    assert time.perf_counter() - began >= 5 * 0.03
    assert (engine.stats().dtype, engine.stats().context_length) == ("paced", 100)
    await engine.close()

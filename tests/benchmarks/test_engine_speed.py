from pathlib import Path

import pytest

from benchmarks.engine.contestants import EngineContestant, GenerateContestant, Timing
from benchmarks.engine.harness import Workbench
from benchmarks.engine.plot import plot_speed
from benchmarks.engine.speed import METRIC_WIDTHS, speed_metrics, summary


def rows(**speeds: float) -> list[dict[str, object]]:
    return [
        summary(name, width, [Timing(speed * width, 2 * speed * width, 40.0)])
        for name, speed in speeds.items()
        for width in METRIC_WIDTHS
    ]


def test_a_summary_holds_the_median_and_the_spread() -> None:
    found = summary(
        "auto", 8, [Timing(10.0, 12.0, 5.0), Timing(30.0, 9.0, 4.0), Timing(20.0, 8, 9)]
    )
    assert (found["tokens_per_s"], found["tokens_per_s_min"], found["tokens_per_s_max"]) == (
        20.0,
        10.0,
        30.0,
    )
    assert found["decode_tokens_per_s"] == 9.0
    assert found["step_ms"] == 5.0


def test_ratios_compare_the_same_width() -> None:
    metrics = speed_metrics(rows(auto=30.0, float32=20.0, generate=10.0, paged=5.0))
    assert [metrics[f"speedup_vs_generate_{width}"] for width in METRIC_WIDTHS] == [3.0, 3.0, 3.0]
    assert metrics["speedup_vs_paged_8"] == 6.0
    assert metrics["engine_float32_speedup_16"] == 2.0
    assert metrics["step_ms_8"] == 40.0


def test_what_was_not_measured_is_no_metric() -> None:
    metrics = speed_metrics(rows(auto=30.0, float32=20.0, generate=10.0))
    assert "speedup_vs_paged_8" not in metrics
    assert "speedup_vs_bfloat16_generate_8" not in metrics


@pytest.mark.slow
def test_contestants_do_the_same_work(tiny_model_folder: str) -> None:
    bench = Workbench(Path(tiny_model_folder), quick=True)
    prompts = bench.documents(2, 20)
    for contestant in (
        EngineContestant(bench.core("float32")),
        GenerateContestant(bench.reference("float32")),
    ):
        timing = contestant(prompts, 6)  # Raises unless six tokens are behind every prompt.
        assert timing.tokens_per_s > 0
        assert timing.decode_tokens_per_s > 0


def test_the_plot_is_written_in_both_forms(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot_speed(rows(auto=30.0, generate=10.0), "int8", tmp_path)
    assert (tmp_path / "engine.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "engine.svg").read_text()

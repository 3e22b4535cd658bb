"""Calibrations are read from an adapter's folder, and settings override them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from plato.errors import ModelError
from plato.models.calibration import FILE, Calibration
from plato.settings import Settings

TUNED = Calibration(0.5, 0.25, 1.0, 0.0, examples=False)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    TUNED.write(tmp_path)
    assert Calibration.read(tmp_path) == TUNED


def test_without_one_the_defaults_are_used(tmp_path: Path) -> None:
    assert Calibration.read(None) == Calibration.read(tmp_path) == Calibration()


def test_settings_come_first(tmp_path: Path) -> None:
    TUNED.write(tmp_path)
    found = Calibration.of(Settings(split_threshold=0.0, dependency_threshold=-9), tmp_path)
    assert (found.split_threshold, found.dependency_threshold) == (0.0, -9)
    assert found.dependency_margin == TUNED.dependency_margin
    assert Calibration.of(Settings(), tmp_path) == TUNED


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"split_threshold": 1.5}, "split_threshold: Input should be less than or equal to 1"),
        ({"split_threshold": "high"}, "split_threshold: Input should be a valid number"),
        ({"dependency_threshold": None}, "dependency_threshold: Input should be a valid number"),
        ({"split": 0.5}, "split: Unexpected keyword argument"),
        ({"examples": ...}, "examples is missing"),
    ],
)
def test_a_damaged_file_is_refused(
    changed: dict[str, object], problem: str, tmp_path: Path
) -> None:
    content = {**asdict(TUNED), **changed}
    content = {name: value for name, value in content.items() if value is not ...}
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(ModelError, match=rf"not a calibration \({problem}"):
        Calibration.read(tmp_path)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ModelError, match="not a calibration"):
        Calibration.read(tmp_path)

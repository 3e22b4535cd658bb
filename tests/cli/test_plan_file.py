"""Plans in files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plato.cli.errors import UsageError
from plato.cli.plan_file import read_plan
from tests.cli.running import refused

LINES = "1 | Salt | -\n2 | - | Depth\n3 | Both | 1,2 | long\n[END]\n"
PARTS = [
    {"number": 1, "title": "Salt", "dependencies": []},
    {"number": 2, "title": "Depth", "dependencies": []},
    {"number": 3, "title": "Both", "dependencies": [1, 2], "length": "long"},
]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_plan_lines(tmp_path: Path, ending: str) -> None:
    file = tmp_path / "plan"
    file.write_bytes(LINES.replace("\n", ending).encode())
    assert read_plan(file) == PARTS


@pytest.mark.parametrize("name", ["plan", "plan.json"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json(tmp_path: Path, name: str, indent: int | None) -> None:
    file = tmp_path / name
    file.write_text(json.dumps(PARTS, indent=indent))
    assert read_plan(file) == PARTS


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"1 | - | Salt\n", r"\[END\]"),
        (b"1 | 2 | Salt\n[END]", "line 1"),
        (b"[ONE]", "sequential"),
        (b"[{]", "not valid JSON"),
        (b'{"parts": []}', "not a JSON list"),
        (b"\xff\xfe", "cannot be read .it is not UTF-8 text"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: bytes, wrong: str) -> None:
    file = tmp_path / "plan"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=wrong):
        read_plan(file)


def test_a_file_that_is_not_there_is_an_error_of_the_command(tmp_path: Path) -> None:
    line = refused("ask", "Why?", "--plan", str(tmp_path / "none"))
    assert line.startswith("the plan in ")
    assert line.endswith("cannot be read (No such file or directory)")

"""What a start tells, with and without a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from plato.server.options import ServeOptions
from plato.server.stages import Stages
from plato.settings import Settings

START = """
import time
from plato.server.options import ServeOptions
from plato.server.stages import Stages
from plato.settings import Settings
with Stages() as stages:
    stages("loading")
    stages.progress("downloading", 0.25)
    time.sleep(0.3)
stages.ready(ServeOptions(Settings(), open_page=True), "http://m/metrics")
"""


def test_stages_are_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Stages() as stages:
        stages("loading")
        stages.progress("downloading", 0.1)
        stages.progress("downloading", 0.2)
    stages.ready(ServeOptions(Settings(served_model_name="m"), key="sk-shown"), "http://m/metrics")
    lines = [line.split() for line in capsys.readouterr().err.splitlines()]
    assert [words[2:] for words in lines[:3]] == [["loading"], ["downloading"], ["serving", "m"]]
    assert lines[3:] == [
        ["page", "http://127.0.0.1:8000/"],
        ["API", "http://127.0.0.1:8000/v1"],
        ["metrics", "http://m/metrics"],
        ["key", "sk-shown"],
    ]


def test_on_a_terminal_a_bar_moves_and_leaves_no_trace() -> None:
    master, slave = pty.openpty()
    environment = {name: os.environ[name] for name in os.environ.keys() - {"DISPLAY"}}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "80"}
    environment.pop("WAYLAND_DISPLAY", None)
    with subprocess.Popen([sys.executable, "-c", START], stderr=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            shown += piece
    os.close(master)
    assert process.returncode == 0
    text = shown.decode()
    assert "downloading" in text
    assert "25" in text or "━" in text
    # The cursor is hidden while the bar moves.
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    if sys.platform == "linux":
        assert "visit http://127.0.0.1:8000/" in text.splitlines()[-1]

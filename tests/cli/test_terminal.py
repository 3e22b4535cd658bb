"""Answers on a narrow terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from typing import Any

from plato.api.answers.run_info import PlatoInfo, Usage
from plato.runs import Mode, NodeReport, NodeState, RunState
from tests.replaying import DONE, ReplayServer, delta, event, happened
from tests.runs.examples import chosen, finished, output, planned, request

WIDTH = 40
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TITLES = {1: "Salt and where it comes from", 2: "Depth"}
TEXTS = {1: "Rivers bring **salt** to the", 2: "It is deep."}
NODES = tuple(
    NodeReport(
        number,
        title,
        (),
        NodeState.DONE,
        started_s=0.1,
        finished_s=12.3,
        tokens=6,
        answer_tokens=6,
        cut="budget" if number == 1 else None,
    )
    for number, title in TITLES.items()
)


def end() -> bytes:
    report = replace(RunState(request()).report(), mode=Mode.PLATO, nodes=NODES)
    usage = {"choices": [], "usage": Usage.of(report).model_dump(mode="json")}
    last = delta(finish="stop", **PlatoInfo.of(report).model_dump(mode="json"))
    return last + event(usage)


def shown(*arguments: str, **environment: str) -> list[str]:
    """The lines that the command leaves on a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
    settings: dict[str, Any] = {name: os.environ[name] for name in os.environ.keys() - {"COLUMNS"}}
    with subprocess.Popen(
        [sys.executable, "-m", "plato", *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**settings, "TERM": "xterm-256color", **environment},
    ) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                piece = os.read(master, 65536)
            except OSError:
                break
            written += piece
    os.close(master)
    assert process.returncode == 0, written.decode()
    # What was shown in the meantime is erased.
    return CONTROLS.sub("", written.decode().rpartition("\x1b[2K")[2]).splitlines()


def test_an_answer_is_readable_at_40_columns() -> None:
    answer = "\n\n".join(f"## {TITLES[number]}\n\n{TEXTS[number]}" for number in TITLES)
    pieces = [chosen(), *(planned(number, title) for number, title in TITLES.items())]
    for number, text in TEXTS.items():
        pieces += [output(number, text), finished(number, text)]
    with ReplayServer(*map(happened, pieces), delta(answer), end(), DONE) as server:
        lines = shown("ask", "Why?", "--url", server.url)
    assert all(len(line) <= WIDTH for line in lines)
    text = "\n".join(line.strip() for line in lines)
    assert "Rivers bring salt to the […]" in text
    assert "It is deep.\n" in text
    assert "…" not in text.replace("[…]", "")
    (header,) = [line for line in lines if line.startswith("part")]
    assert header.split() == ["part", "start", "end", "tokens"]
    (row,) = [line for line in lines if line.strip().startswith("1  ")]
    assert row.split() == ["1", "0.10", "12.30", "6"]

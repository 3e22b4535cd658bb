"""Tables on terminals of any width."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest

from plato.cli.bench import Row, _print
from plato.cli.tables import print_rows

ID = "e7cc7a21309749afa5589a1fbc3d85c1"
QUESTION = "How do I choose my first road bicycle?"
HEADERS = ("run", "status", "question")
CONTROLS = re.compile(r"\x1b\[[0-9;]*m")


Shown = Callable[[int, Callable[[], None]], list[str]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shown:
    """What is printed to a terminal with so many columns."""

    def lines(columns: int, printing: Callable[[], None]) -> list[str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", str(columns))
        printing()
        written = CONTROLS.sub("", capsys.readouterr().out)
        return [line.rstrip() for line in written.splitlines()]

    return lines


def test_a_row_is_a_line_where_there_is_room(shown: Shown) -> None:
    lines = shown(100, lambda: print_rows([(ID, "done", QUESTION)], *HEADERS))
    assert [line.split(maxsplit=2) for line in lines] == [list(HEADERS), [ID, "done", QUESTION]]


def test_on_a_narrow_terminal_a_cell_is_a_line_and_nothing_is_cut(shown: Shown) -> None:
    row = [
        f"run {ID}",
        "  status    done",
        "  question  How do I choose my first",
        "            road bicycle?",
        "",
    ]
    assert shown(40, lambda: print_rows([(ID, "done", QUESTION)] * 2, *HEADERS)) == 2 * row


def test_long_words_of_a_table_without_headers_are_broken_not_cut(shown: Shown) -> None:
    folder = "/a/folder/with/quite/a/long/name/on/this/machine"
    lines = shown(40, lambda: print_rows([("model", folder, "see the rest")]))
    assert "…" not in "".join(lines)
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_figures_of_a_model_with_a_long_name_are_whole(shown: Shown, columns: int) -> None:
    name = "HuggingFaceTB/SmolLM2-135M-Instruct:sequential"
    rows = [Row(name, width, 8, 0, 0.02, 1.31, 2.01, 1134.5) for width in (1, 4)]
    lines = shown(columns, lambda: _print(rows))
    assert lines[0] == name
    for figure in ("at a time", "0.02 s", "1.31 s", "2.01 s", "1134.5"):
        assert any(figure in line for line in lines), figure

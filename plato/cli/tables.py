"""Tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 500
"""Where there is no terminal, nothing is cut."""
GAP = 2
LAST_WIDTH = 12
"""In which the last column, which is wrapped first, can still be read."""


def print_rows(
    rows: Iterable[Sequence[str | Text]], *headers: str, right: Collection[str] = ()
) -> None:
    """Print a table to standard output. See `table_of`.

    On a terminal that is too narrow for it, a line for each cell follows the first cell of a row.
    """
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    rows = list(rows)
    if not headers or _needed_width([headers, *rows]) <= console.width:
        console.print(table_of(rows, *headers, right=right))
        return
    for first, *others in rows:
        console.print(Text.assemble((f"{headers[0]} ", "dim"), first))
        named = zip((Text(header, style="dim") for header in headers[1:]), others, strict=True)
        console.print(Padding(table_of(named), (0, 0, 1, 2)))


def table_of(
    rows: Iterable[Sequence[str | Text]], *headers: str, right: Collection[str] = ()
) -> Table:
    """Rows without lines between them; strings are shown as they are, without markup.

    The columns whose headers are in `right` are aligned there. They are not wrapped, nor is the
    first one.
    """
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, GAP, 0, 0),
        header_style="dim",
        show_header=bool(headers),
    )
    for header in headers:
        aligned = header in right
        table.add_column(
            header,
            justify="right" if aligned else "left",
            no_wrap=aligned or header == headers[0],
        )
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    for column in table.columns:
        column.overflow = "fold"
    return table


def _needed_width(rows: Iterable[Sequence[str | Text]]) -> int:
    """Cells for all columns but the last one, and for the beginning of that."""
    columns = zip(*rows, strict=True)
    *others, last = (max(cell_len(str(cell)) for cell in column) for column in columns)
    return sum(width + GAP for width in others) + min(last, LAST_WIDTH)

"""Tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 500
"""Where there is no terminal, nothing is cut."""


def print_rows(
    rows: Iterable[Sequence[str | Text]], *headers: str, right: Collection[str] = ()
) -> None:
    """Print a table to standard output. See `table_of`."""
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    console.print(table_of(rows, *headers, right=right))


def table_of(
    rows: Iterable[Sequence[str | Text]], *headers: str, right: Collection[str] = ()
) -> Table:
    """Rows without lines between them; strings are shown as they are, without markup.

    The columns whose headers are in `right` are aligned there; the first one is not wrapped.
    """
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="dim",
        show_header=bool(headers),
    )
    for header in headers:
        table.add_column(
            header, justify="right" if header in right else "left", no_wrap=header == headers[0]
        )
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table

"""The `plato` command."""

from __future__ import annotations

import sys

from plato.interrupts import abrupt_interrupts

INTERRUPTED = 130
"""The exit status that shells use for Ctrl-C."""


def main() -> None:
    """Run the command."""
    with abrupt_interrupts():
        from plato import cli

    try:
        cli.main()
    except KeyboardInterrupt:
        # Typer turns it into an exit status only while a command runs, not while it is prepared.
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()

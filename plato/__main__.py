"""The `plato` command."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command. While it is being imported, Ctrl-C ends it without a traceback."""
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from plato import cli

    try:
        signal.signal(signal.SIGINT, interrupt)
        cli.main()
    except KeyboardInterrupt:
        # Typer turns it into an exit status only while a command runs, not while it is prepared.
        sys.exit(cli.INTERRUPTED)


if __name__ == "__main__":
    main()

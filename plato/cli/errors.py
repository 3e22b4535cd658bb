"""Errors of commands: one line, or JSON, on standard error, and an exit status."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from plato.client import UnreachableError
from plato.errors import (
    AuthenticationError,
    BodyTimeoutError,
    DeadlineError,
    InvalidRequestError,
    OverloadedError,
    PlatoError,
    SettingsError,
    UnavailableError,
)
from plato.extras import not_installed


class ExitCode(IntEnum):
    """What the command's exit status means."""

    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    BUSY = 5
    """Overloaded, or out of time."""
    INTERRUPTED = 130
    """As shells have it for Ctrl-C."""


class UsageError(PlatoError):
    """The command line, or a file that it names, is wrong."""

    type = "invalid_request_error"
    code = "usage_error"


_CODES: dict[type[PlatoError], ExitCode] = {
    UsageError: ExitCode.USAGE,
    SettingsError: ExitCode.USAGE,
    UnreachableError: ExitCode.UNREACHABLE,
    OverloadedError: ExitCode.BUSY,
    UnavailableError: ExitCode.BUSY,
    DeadlineError: ExitCode.BUSY,
    BodyTimeoutError: ExitCode.BUSY,
    InvalidRequestError: ExitCode.REFUSED,
}
"""In the order in which they are tried."""


def exit_code(error: PlatoError) -> ExitCode:
    """The exit status for an error."""
    found = (code for kind, code in _CODES.items() if isinstance(error, kind))
    return next(found, ExitCode.FAILED)


class CommandLine(TyperGroup):
    """The whole command line: turns every expected error into one line and an exit status.

    With `--json` the line is an object in OpenAI's shape.
    """

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, **options: Any
    ) -> Any:
        """Run the command, and exit."""
        given = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in given
        try:
            status = super().main(given, **{**options, "standalone_mode": False})
        except typer.Abort:
            # A question was answered with no.
            status = ExitCode.FAILED
        except typer.TyperException as error:
            if not error.format_message():
                # Called without arguments: its help has been printed.
                sys.exit(ExitCode.USAGE)
            status = _tell(UsageError(_in_our_words(error)), as_json=as_json)
        except PlatoError as error:
            status = _tell(error, as_json=as_json)
        except ModuleNotFoundError as error:
            status = _tell(not_installed(error), as_json=as_json)
        except BrokenPipeError:
            # Whoever read the output has left. Python would complain once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = ExitCode.FAILED
        except OSError as error:
            status = _tell(PlatoError(str(error), code="os_error"), as_json=as_json)
        sys.exit(int(status or 0))


def _tell(error: PlatoError, *, as_json: bool) -> ExitCode:
    if as_json:
        fields = {name: getattr(error, name) for name in ("message", "type", "param", "code")}
        line = json.dumps({"error": fields})
    else:
        # Servers speak of headers.
        how = " (--api-key, or PLATO_API_KEY)" if isinstance(error, AuthenticationError) else ""
        line = f"plato: {error.message}{how}"
    sys.stderr.write(f"{line}\n")
    return exit_code(error)


def _in_our_words(error: typer.TyperException) -> str:
    """What the parser of the command line says, without pydantic's words, and where help is."""
    message = error.format_message().partition(", unable to parse")[0]
    message = message.replace("Input should", "it should").replace("Value error, ", "").rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see: {context.command_path} --help" if context else message
